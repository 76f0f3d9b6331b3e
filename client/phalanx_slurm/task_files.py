"""Names of the files that tasks read and write: `log-%j-%4t.out`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from phalanx_slurm.task_env import Job, Step, place

_MARK: Final = re.compile(r"%(?P<width>[0-9]{0,2})(?P<letter>[A-Za-z%])")
_OF_TASKS: Final = frozenset("tnN")
_NO_TASK: Final = 2**32 - 2
"""What SLURM writes for `%a` in a job that is of no array."""


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """Put values in for their letters, numbers with zeros in front up to the width; a letter that
    has no value stays as it is. A backslash turns the marks off.
    """
    if "\\" in pattern:
        return pattern.replace("\\", "")

    def put(match: re.Match[str]) -> str:
        letter = match["letter"]
        if letter == "%":
            return "%"
        if letter not in values:
            return match[0]
        value = values[letter]
        return value.zfill(int(match["width"] or 0)) if value.isdecimal() else value

    return _MARK.sub(put, pattern)


def is_each_tasks(pattern: str) -> bool:
    """Tell whether tasks, or nodes, have files of their own by it."""
    marks = {match["letter"] for match in _MARK.finditer(pattern)}
    return "\\" not in pattern and bool(marks & _OF_TASKS)


def task_values(job: Job, step: Step, task: int) -> dict[str, str]:
    """Tell what a task's files are named by."""
    node, _ = place(step.counts, task)
    asked = job.asked
    return {
        "j": str(job.number),
        "J": f"{job.number}.{step.number}",
        "s": str(step.number),
        "A": str(job.number if asked.array_job is None else asked.array_job),
        "a": str(_NO_TASK if asked.array_task is None else asked.array_task),
        "x": asked.name or job.name,
        "u": job.user,
        "N": job.nodes[step.ranks[node]].host,
        "n": str(node),
        "t": str(task),
    }
