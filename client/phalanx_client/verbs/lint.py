"""`phalanx lint`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from phalanx_client import output
from phalanx_client.arguments import Parser
from phalanx_client.call import Call, Verb
from phalanx_client.failure import BAD_INPUT, NOT_FOUND, OK, Failure
from phalanx_client.lint import lint
from phalanx_client.lint.found import Finding, Read
from phalanx_client.options import session_file


class Findings(msgspec.Struct, frozen=True):
    """What was found, by file and line."""

    findings: tuple[Finding, ...]


def declare(parser: Parser) -> None:
    """Options of `lint`."""
    parser.add_argument("file", metavar="FILE", help="a program, a batch script, or a session")
    parser.add_argument(
        "-N", "--size", type=int, metavar="N", help="how many containers will run the program"
    )


async def run(call: Call) -> int:
    """Look at a file; 65 when something does not fit."""
    found = _look(Path(call.options.file), call.options.size)
    if found or call.form in ("json", "yaml"):
        call.show(Findings(tuple(found)), lambda: _text(found), [one.code for one in found])
    elif not call.quiet:
        output.note(f"{call.options.file}: nothing was found")
    return BAD_INPUT if found else OK


def _look(path: Path, size: int | None) -> list[Finding]:
    if path.suffix in (".yaml", ".yml", ".json"):
        return lint.of_session(str(path), session_file(str(path)), _beside(path))
    text = _read(path)
    if path.suffix == ".py":
        return lint.of_python(str(path), text, size)
    if text.startswith("#!") or "#SBATCH" in text:
        return lint.of_script(str(path), text, _beside(path))
    hint = "a program is named *.py, a session *.yaml or *.json, a batch script begins with #!"
    raise Failure(f"{path}: {hint}", BAD_INPUT)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path} can't be read: {error.strerror}", NOT_FOUND) from error
    except UnicodeDecodeError as error:
        raise Failure(f"{path} can't be read: it is not UTF-8") from error


def _beside(path: Path) -> Read:
    """Read what a file names relative to itself."""

    def read(name: str) -> str | None:
        there = path.parent / name
        return _read(there) if there.is_file() else None

    return read


def _text(found: list[Finding]) -> str:
    told: list[str] = []
    for one in found:
        told.append(f"{one.file}:{one.line}: {one.code}: {one.text}")
        if one.hint:
            told.append(f"    -> {one.hint}")
    return "\n".join(told)


VERBS = {"lint": Verb("lint FILE [-N N]", declare, run)}
