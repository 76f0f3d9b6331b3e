"""Which jobs a job waits for: `afterok:42:43,afterany:44_1`, `singleton`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, cast

from phalanx_slurm.arrays import JobRef, job_ref
from phalanx_slurm.wrong import WrongError

Kind = Literal["afterok", "afterany", "afternotok", "aftercorr"]
KINDS: Final = ("afterok", "afterany", "afternotok", "aftercorr")


@dataclass(frozen=True, slots=True)
class Wait:
    """Jobs whose end, of a certain kind, is waited for."""

    kind: Kind
    jobs: tuple[JobRef, ...]


@dataclass(frozen=True, slots=True)
class Dependency:
    """All that is waited for; `singleton` is every earlier job of the same name."""

    waits: tuple[Wait, ...] = ()
    singleton: bool = False


def dependency(text: str) -> Dependency:
    """Read the value of `--dependency`.

    Raises:
        WrongError: it is none, or of a kind that there is not.
    """
    if "?" in text:
        raise WrongError(
            "--dependency: one of several (?) can't be waited for; all of them can (,)"
        )
    waits: list[Wait] = []
    singleton = False
    for part in text.split(","):
        kind, *jobs = part.split(":")
        kind = kind.lower()
        if kind == "singleton" and not jobs:
            singleton = True
            continue
        if kind == "after" or re.search(r"\+[0-9]+$", part):
            raise WrongError("--dependency: the begin of a job can't be waited for; its end can")
        if kind not in KINDS or not jobs:
            raise WrongError(f"Job dependency problem: {text[:80]}")
        waits.append(Wait(cast("Kind", kind), tuple(job_ref(job) for job in jobs)))
    return Dependency(tuple(waits), singleton)
