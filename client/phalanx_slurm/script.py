"""Batch scripts: the `#SBATCH` lines before the first command, and who interprets them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from phalanx_slurm.argv import Given, Options
from phalanx_slurm.wrong import WrongError

MOST_BYTES: Final = 100_000
_MARK: Final = "#SBATCH"


@dataclass(frozen=True, slots=True)
class Script:
    """A batch script.

    Attributes:
        text: all of it.
        interpreter: of its first line, split as the kernel does: the program, and at most one
            argument.
        parts: the options of each part; more than one where it says `hetjob`.
    """

    text: str
    interpreter: tuple[str, ...]
    parts: tuple[Given, ...]


def read(data: bytes, options: Options) -> Script:
    """Read a script as `sbatch` does.

    Raises:
        WrongError: it is no script, too long, or has an option that there is not.
    """
    if not data.strip():
        raise WrongError("Batch script is empty!")
    if len(data) > MOST_BYTES:
        raise WrongError(
            f"Batch script of {len(data)} bytes is longer than {MOST_BYTES}; call what is in it "
            "from a shorter one"
        )
    if b"\0" in data:
        raise WrongError("Batch script contains a NUL character; is it a program? Use --wrap")
    if b"\r\n" in data:
        raise WrongError(
            "Batch script contains DOS line breaks (\\r\\n)\n"
            "instead of expected UNIX line breaks (\\n)."
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise WrongError("Batch script is not UTF-8") from None
    interpreter = _interpreter(text)
    return Script(text, interpreter, _parts(text, options))


def wrapped(command: str) -> Script:
    """Make the script that `--wrap` means."""
    return Script(
        f"#!/bin/sh\n# This script was created by sbatch --wrap.\n\n{command}\n",
        ("/bin/sh",),
        ({},),
    )


def _interpreter(text: str) -> tuple[str, ...]:
    line = text.split("\n", 1)[0]
    words = line[2:].strip().split(None, 1) if line.startswith("#!") else []
    if not words:
        raise WrongError(
            "This does not look like a batch script.  The first\n"
            "line must start with #! followed by the path to an interpreter.\n"
            "For instance: #!/bin/sh"
        )
    return tuple(word.strip() for word in words)


def _parts(text: str, options: Options) -> tuple[Given, ...]:
    parts: list[Given] = [{}]
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            break
        if not line.startswith(_MARK) or line[len(_MARK) : len(_MARK) + 1] not in (" ", "\t"):
            continue
        words = _words(line[len(_MARK) :], number)
        if words in (["hetjob"], ["packjob"]):
            parts.append({})
            continue
        given, rest = options.parse(words)
        if rest:
            raise WrongError(f"line {number}: {rest[0][:80]!r} is no option")
        for long, value in given.items():
            parts[-1].pop(long, None)
            parts[-1][long] = value
    return tuple(parts)


def _words(text: str, number: int) -> Sequence[str]:
    words = shlex.shlex(text, posix=True, punctuation_chars=False)
    words.whitespace_split = True
    words.commenters = "#"
    try:
        return list(words)
    except ValueError as error:
        raise WrongError(f"line {number}: {error}") from None
