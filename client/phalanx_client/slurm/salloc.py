"""`salloc`: containers that wait for steps, and a shell on this machine while they live."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

from phalanx_client.blocking import finish
from phalanx_client.failure import Failure
from phalanx_client.session import Client
from phalanx_client.slurm import allocate, ask, hangup
from phalanx_slurm.argv import Given, from_environment
from phalanx_slurm.jobs import Job
from phalanx_slurm.options import RENAMED, SALLOC, usual

USAGE = "Usage: salloc [OPTIONS...] [command [args...]]   (options as of sbatch; --no-shell)"


def main(argv: list[str]) -> int:
    """Run it."""
    given, command = SALLOC.parse(argv)
    if "help" in given or "usage" in given:
        print(USAGE)
        return 0
    environ = from_environment("SALLOC", usual("SALLOC"), os.environ, RENAMED)
    with hangup.interrupting():
        return _run({**environ, **given}, command)


def _run(given: Given, command: Sequence[str]) -> int:
    asker = ask.Asker("salloc")
    client = asker.client()
    found = finish(allocate.allocated(asker, client, given, "interactive", os.environ))
    asker.note(f"Granted job allocation {found.number}")
    if "no-shell" in given:
        return 0
    try:
        return _shell(client, found, command or (os.environ.get("SHELL") or "/bin/sh",))
    finally:
        try:
            asker.note(f"Relinquishing job allocation {found.number}")
        finally:  # there may be no terminal any more to say it to
            finish(client.stop(found.view.id))


def _shell(client: Client, found: Job, command: Sequence[str]) -> int:
    """Run a command here with the job's variables; Ctrl-C is its own business."""
    ranks = finish(client.env(found.view.id)).ranks
    told = {one.name: one.value for one in ranks[0].variables if one.name.startswith("SLURM_")}
    for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"):
        told.pop(name, None)  # no task of the job runs here
    # Handled, not ignored, so that the command begins without it. With code of ours between fork
    # and exec Python would swallow an interrupt of that moment.
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **told},
            check=False,
        )
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}", 1) from error
    finally:
        signal.signal(signal.SIGINT, before)
    return done.returncode if done.returncode >= 0 else 128 - done.returncode
