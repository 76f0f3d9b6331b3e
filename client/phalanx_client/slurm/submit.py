"""From what is asked for to sessions: hosts' memory, dependencies, uploads, arrays."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from msgspec.structs import replace as with_fields

from phalanx_client.sending import Folder, wanted
from phalanx_client.session import Client
from phalanx_client.slurm import ask
from phalanx_slurm.arrays import JobRef
from phalanx_slurm.batch import Asked, with_all_memory, with_array
from phalanx_slurm.depend import Dependency, Wait
from phalanx_slurm.jobs import Job, job
from phalanx_slurm.request import JobRequest
from phalanx_slurm.wrong import WrongError

MOST_WAITS = 100


@dataclass(frozen=True, slots=True)
class Waits:
    """What a job waits for, as the manager's own words; by the task of an array, where each waits
    for its like.
    """

    common: tuple[str, ...] = ()
    by_task: tuple[tuple[int, str], ...] = ()

    def of(self, task: int | None) -> tuple[str, ...]:
        """Those of one task."""
        return self.common + tuple(text for index, text in self.by_task if index == task)


async def sized(client: Client, wish: JobRequest) -> JobRequest:
    """Fill in `--mem=0`: all that the smallest host of the partition has."""
    if all(room.mem_bytes != 0 for room in (wish.room, *(part.room for part in wish.more))):
        return wish
    found = await client.nodes()
    partition = wish.partition or "default"
    sizes = [
        node.capacity.mem_bytes
        for node in found.nodes
        if node.cluster == partition and node.state == "ready"
    ]
    return with_all_memory(wish, min(sizes, default=0))


async def waits_for(client: Client, after: Dependency, name: str) -> Waits:
    """Find the jobs that a dependency names.

    Raises:
        WrongError: there is no such job, or they are too many.
    """
    common: list[str] = []
    by_task: list[tuple[int, str]] = []
    refs = [ref for wait in after.waits for ref in wait.jobs]
    found = await ask.named(client, refs)
    for wait in after.waits:
        for ref in wait.jobs:
            if not found[ref]:
                raise WrongError("Batch job submission failed: Job dependency problem")
            _add(wait, ref, found[ref], common, by_task)
    if after.singleton:
        mine = ask.chosen(await ask.all_jobs(client, ended=False), lambda one: one.name == name)
        common += [f"afterany:{one.view.id}" for one in mine]
    if len(common) > MOST_WAITS:
        raise WrongError(f"--dependency: {len(common)} jobs are too many to wait for")
    return Waits(tuple(common), tuple(by_task))


def _add(
    wait: Wait, ref: JobRef, jobs: Sequence[Job], common: list[str], by_task: list[tuple[int, str]]
) -> None:
    for one in jobs:
        if wait.kind == "aftercorr" and ref.tasks is None and one.task is not None:
            by_task.append((one.task, f"afterok:{one.view.id}"))
        else:
            kind = "afterok" if wait.kind == "aftercorr" else wait.kind
            common.append(f"{kind}:{one.view.id}")


async def submit(
    client: Client, wish: JobRequest, make: Callable[[int | None], Asked], waits: Waits
) -> list[Job]:
    """Submit a job, or all tasks of an array in order; `make` makes the session of each.

    A limit of an array (`%4`) is kept by having each task wait for the end of the one that is so
    many before it.
    """
    submitted: list[Job] = []
    array = wish.array
    with ExitStack() as closing:
        folder: Folder | None = None
        for task in array.tasks if array is not None else (None,):
            asked = make(task)
            if asked.upload and folder is None:
                sealing = wanted(os.environ)
                folder = closing.enter_context(Folder(client, asked.upload, seal=sealing))
            first = submitted[0].number if submitted else None
            asked = with_array(asked, wish, first)
            after = list(waits.of(task))
            if array is not None and array.at_once and len(submitted) >= array.at_once:
                after.append(f"afterany:{submitted[-array.at_once].view.id}")
            spec = with_fields(asked.spec, after=",".join(after) or None)
            sender = client if folder is None else folder
            submitted.append(job(await sender.submit(spec, secrets.token_hex(16))))
    return submitted


def in_partition(wish: JobRequest, usual: str) -> JobRequest:
    """Name the partition that is meant where none was."""
    return wish if wish.partition else replace(wish, partition=usual)
