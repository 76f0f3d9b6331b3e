"""Jobs without a script: containers that wait for steps, for `salloc` and `srun`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from msgspec.structs import replace as with_fields

from phalanx_client.failure import Failure, Refused
from phalanx_client.session import Client
from phalanx_client.slurm import ask, site, submit
from phalanx_slurm import options
from phalanx_slurm.argv import Given
from phalanx_slurm.batch import Asked, folder_of, session, upload_of, variables
from phalanx_slurm.jobs import Job, job
from phalanx_slurm.request import request, unwarned


async def allocated(
    asker: ask.Asker, client: Client, given: Given, name: str, environ: Mapping[str, str]
) -> Job:
    """Submit an interactive job, and wait until it runs.

    Raises:
        Failure: it can't be, or has ended meanwhile.
        KeyboardInterrupt: the asker does not want it any more; it is ended then.
    """
    wish = submit.in_partition(request((given,)), asker.said.partition)
    wish = wish if wish.name else replace(wish, name=name)
    place = site.here(asker.said, environ)
    if "quiet" not in given:
        for sentence in filter(None, (*options.ignored(given), unwarned(wish))):
            asker.note(f"note: {sentence}")
    wish = await submit.sized(client, wish)
    waits = await submit.waits_for(client, wish.after, wish.name)
    folder = folder_of(wish, place)
    spec = with_fields(
        session(wish, place),
        kind="interactive",
        workdir=wish.container.workdir or (folder if place.is_shared(folder) else None),
        env={**variables(wish.export, wish.container.env, environ)},
    )
    asked = Asked(spec, upload_of(wish, place), files=False)
    try:
        (found,) = await submit.submit(client, wish, lambda _: asked, waits)
    except Refused as refused:
        raise Failure(f"Unable to allocate resources: {refused}", 1) from refused
    for warning in found.view.warnings if "quiet" not in given else ():
        asker.note(f"warning: {warning}")
    try:
        return await _begun(asker, client, found)
    except (KeyboardInterrupt, asyncio.CancelledError):  # the latter where there is a loop
        await client.stop(found.view.id)
        raise


async def _begun(asker: ask.Asker, client: Client, found: Job) -> Job:
    if found.view.state == "pending":
        asker.note(f"job {found.number} queued and waiting for resources")
    view = await client.wait(found.view.id, "running")
    assert view is not None  # noqa: S101 - it was waited for without a limit
    if view.state != "running":
        raise Failure(f"Job {found.number} has ended before it began: {view.reason}", 1)
    asker.note(f"job {found.number} has been allocated resources")
    return job(view)
