"""Job arrays, `0-9:2%4`, and how jobs are named: `42`, `42_7`, `42_[1-3]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from phalanx_slurm.wrong import WrongError

MOST_TASKS: Final = 1_001
_RANGE: Final = re.compile(
    r"(?P<first>[0-9]{1,7})(?:-(?P<last>[0-9]{1,7})(?::(?P<step>[1-9][0-9]{0,6}))?)?"
)
_REF: Final = re.compile(
    r"(?P<job>[1-9][0-9]{0,14})(?:\+(?P<part>[0-9]{1,5}))?"
    r"(?:_(?:(?P<one>[0-9]{1,7})|\[(?P<many>[0-9,:-]+)(?:%[0-9]+)?\]|\*))?(?:\.(?P<step>[a-z0-9]+))?"
)


@dataclass(frozen=True, slots=True)
class Array:
    """Indices in ascending order, and how many may run at once; 0 is all."""

    tasks: tuple[int, ...]
    at_once: int = 0
    step: int = 1


@dataclass(frozen=True, slots=True)
class JobRef:
    """A job, or some tasks of an array; None is all of it."""

    job: int
    tasks: frozenset[int] | None = None


def array(text: str) -> Array:
    """Read the value of `--array`.

    Raises:
        WrongError: it is none, or has more than `MOST_TASKS` tasks.
    """
    body, percent, limit = text.partition("%")
    if percent and not re.fullmatch(r"[1-9][0-9]{0,6}", limit):
        raise WrongError(f"Invalid job array specification: {text[:80]}")
    step = re.search(r":([0-9]+)", body)
    return Array(_indices(body, text), int(limit or 0), int(step[1]) if step else 1)


def job_ref(text: str) -> JobRef:
    """Read how a job is named: `42`, `42_7`, `42_[1-3,5]`, `42.batch`, `42+0`.

    Raises:
        WrongError: it is none of these.
    """
    match = _REF.fullmatch(text)
    if match is None:
        raise WrongError(f"Invalid job id {text[:80]}")
    if match["one"] is not None:
        return JobRef(int(match["job"]), frozenset((int(match["one"]),)))
    if match["many"] is not None:
        return JobRef(int(match["job"]), frozenset(_indices(match["many"], text)))
    return JobRef(int(match["job"]))


def _indices(body: str, whole: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in body.split(","):
        match = _RANGE.fullmatch(part)
        first = int(match["first"]) if match else 1
        last = int(match["last"] or first) if match else 0
        if match is None or last < first or last - first > 10**6:
            raise WrongError(f"Invalid job array specification: {whole[:80]}")
        found.update(range(first, last + 1, int(match["step"] or 1)))
        if len(found) > MOST_TASKS:
            raise WrongError(f"Invalid job array specification: more than {MOST_TASKS} tasks")
    return tuple(sorted(found))
