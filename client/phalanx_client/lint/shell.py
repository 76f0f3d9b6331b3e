"""What a batch script asks for and starts; read as words, nothing is expanded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from phalanx_client.lint.found import Job, Setting, Start
from phalanx_slurm import amounts, script
from phalanx_slurm.argv import Given
from phalanx_slurm.options import SBATCH
from phalanx_slurm.srun_options import SRUN
from phalanx_slurm.wrong import WrongError

_SET: Final = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)", re.DOTALL)
_ENDS: Final = frozenset({"&&", "||", ";", "|", "&", "(", ")"})
_BEFORE: Final = frozenset({"then", "do", "else", "exec", "time", "nohup", "env", "!", "if"})


def job(file: str, text: str) -> Job:
    """Read the `#SBATCH` lines.

    Raises:
        WrongError: `sbatch` would not take them.
    """
    given: Given = script.read(text.encode(), SBATCH).parts[0]
    lines = {name: _line_of(text, name) for name in given}
    nodes = amounts.nodes(given["nodes"]) if "nodes" in given else None
    tasks = _number(given.get("ntasks-per-node"))
    total = _number(given.get("ntasks"))
    if tasks is None and total is not None and not total % (nodes or 1):
        tasks = total // (nodes or 1)
    return Job(file, slurm=True, nodes=nodes or 1, tasks=tasks, lines=lines)


def starts(text: str) -> Iterator[Start]:
    """Walk the commands of a script, each with what is exported before it."""
    settings: dict[str, Setting] = {}
    for line, words in _commands(text):
        own: dict[str, Setting] = {}
        rest = list(words)
        while rest and rest[0] in _BEFORE:
            rest.pop(0)
        while rest and (match := _SET.fullmatch(rest[0])):
            own[match["name"]] = Setting(match["value"], line)
            rest.pop(0)
        if rest[:1] == ["export"]:
            for word in rest[1:]:
                if match := _SET.fullmatch(word):
                    settings[match["name"]] = Setting(match["value"], line)
        elif not rest:
            settings |= own  # exported before or later, or harmless
        else:
            yield started(rest, line, settings | own)


def started(words: Sequence[str], line: int, settings: dict[str, Setting]) -> Start:
    """See through `srun`."""
    if words[0].rpartition("/")[2] != "srun":
        return Start(tuple(words), line, settings=settings)
    try:
        _, rest = SRUN.parse(words[1:])
    except WrongError:
        rest = tuple(words[1:])
    return Start(rest, line, srun=True, settings=settings)


def _commands(text: str) -> Iterator[tuple[int, list[str]]]:
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        first = number + 1
        whole = lines[number]
        while whole.endswith("\\") and number + 1 < len(lines):
            number += 1
            whole = whole[:-1] + " " + lines[number]
        number += 1
        words = shlex.shlex(whole, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        try:
            found = list(words)
        except ValueError:
            continue  # a text over several lines
        command: list[str] = []
        for word in [*found, ";"]:
            if word in _ENDS or set(word) <= set(";&|()"):
                if command:
                    yield first, command
                command = []
            else:
                command.append(word)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _line_of(text: str, option: str) -> int:
    short = {"nodes": "-N", "ntasks": "-n"}.get(option, f"--{option}")
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if words[:1] == ["#SBATCH"] and any(
            word.partition("=")[0] == f"--{option}" or word.startswith(short) for word in words[1:]
        ):
            return number
    return 0
