"""How what happens is written down."""

from __future__ import annotations

import os
from typing import TextIO

import structlog
from structlog.typing import Processor


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
