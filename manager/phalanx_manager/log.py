"""How what happens is written down."""

from __future__ import annotations

import os
import sys
from typing import Final, TextIO

import structlog
from structlog.typing import Processor

_LAST_STANDARD: Final = 2


def processors(stream: TextIO) -> list[Processor]:
    """Tell what structlog does by itself, but with tracebacks that show no values: where `rich` is
    installed those would be in them, environments of users and all.
    """
    *others, _console = structlog.get_config()["processors"]
    renderer = structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and "NO_COLOR" not in os.environ,
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [*others, renderer]


def fill_standard_streams() -> None:
    """Lead closed ones nowhere: the number of one would be the database's or a socket's soon, and
    what a library says at its end would be written there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for good
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - for good
