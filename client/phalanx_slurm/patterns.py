"""Names of output files: `slurm-%j.out`, `logs/%x-%A_%a.log`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Final

DEFAULT: Final = "slurm-%j.out"
DEFAULT_OF_ARRAY: Final = "slurm-%A_%a.out"
_MARK: Final = re.compile(r"%(?P<width>[0-9]{0,2})(?P<letter>[a-zA-Z%])")
_VARIABLES: Final = {
    "j": "$SLURM_JOB_ID",
    "J": "$SLURM_JOB_ID",
    "A": "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}",
    "a": "$SLURM_ARRAY_TASK_ID",
    "N": "$SLURMD_NODENAME",
}
_FIXED: Final = {"n": "0", "t": "0", "s": "batch", "b": "0"}
"""Of the batch script, which is the only task of its step on the first node."""


def shell_word(pattern: str, known: Mapping[str, str]) -> str:
    """Spell a file's name for a shell in the job, where its number is known.

    `known` has values for letters that are settled when it is submitted: `u`, `x`, `a`.
    """
    return "".join(_pieces(pattern, known)) or "''"


def _pieces(pattern: str, known: Mapping[str, str]) -> Iterator[str]:
    if "\\" in pattern:  # a backslash turns the marks off
        yield shlex.quote(pattern.replace("\\", ""))
        return
    at = 0
    for match in _MARK.finditer(pattern):
        if match.start() > at:
            yield shlex.quote(pattern[at : match.start()])
        at = match.end()
        yield _piece(match, known)
    if at < len(pattern):
        yield shlex.quote(pattern[at:])


def _piece(match: re.Match[str], known: Mapping[str, str]) -> str:
    letter, width = match["letter"], int(match["width"] or 0)
    if letter == "%":
        return "%"
    value = known.get(letter) or _FIXED.get(letter)
    if value is not None:
        return shlex.quote(value.zfill(width) if value.isdecimal() else value)
    variable = _VARIABLES.get(letter)
    if variable is None:
        return shlex.quote(match[0])
    if width and letter != "N":
        return f'"$(printf %0{width}d "{variable}")"'
    return f'"{variable}"'


def expanded(pattern: str, known: Mapping[str, str]) -> str:
    """Spell a file's name of a job whose number is known, with the letters' values."""

    def value(match: re.Match[str]) -> str:
        if match["letter"] == "%":
            return "%"
        found = known.get(match["letter"]) or _FIXED.get(match["letter"])
        if found is None:
            return match[0]
        return found.zfill(int(match["width"] or 0)) if found.isdecimal() else found

    if "\\" in pattern:
        return pattern.replace("\\", "")
    return _MARK.sub(value, pattern)
