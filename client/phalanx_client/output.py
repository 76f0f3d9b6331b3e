"""Where a command's result goes: standard output, in the form that was asked for."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Final, Literal, TextIO

import msgspec

from phalanx_client.ansi import escape

Form = Literal["table", "wide", "json", "yaml", "name"]
FORMS: Final[tuple[Form, ...]] = ("table", "wide", "json", "yaml", "name")


def data(view: object, form: Form) -> str | None:
    """A view as JSON or YAML, the API's own shape; None for the forms for people."""
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(view), indent=2).decode()
    if form == "yaml":
        import yaml  # noqa: PLC0415 - slow, and seldom asked for

        text: str = yaml.safe_dump(
            msgspec.to_builtins(view, builtin_types=()), sort_keys=False, allow_unicode=True
        )
        return text.rstrip("\n")
    return None


def say(text: str) -> None:
    """Print a result."""
    print(text, flush=True)


def to(stream: TextIO, line: str) -> None:
    """Print one line at once."""
    stream.write(f"{line}\n")
    stream.flush()


def names(found: Sequence[str]) -> None:
    """Print one name a line; nothing for none."""
    if found:
        say("\n".join(found))


def note(text: str, *, quiet: bool = False) -> None:
    """Tell a person something beside the result, line by line; some of it may be a stranger's."""
    if not quiet:
        print("\n".join(map(escape, text.split("\n"))), file=sys.stderr, flush=True)


def coloured(stream: TextIO) -> bool:
    """Whether colours are wanted on a stream."""
    return stream.isatty() and "NO_COLOR" not in os.environ


def quiet_at_broken_pipe() -> None:
    """Leave nothing to flush into a pipe that nobody reads, so that Python's exit is silent too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def clock(seconds: int) -> str:
    """Unix seconds as a time of day with its date, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
