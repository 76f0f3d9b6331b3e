"""Everything that happens, in order, in words: two runs of one seed have the same."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Never

import structlog

from tests.sim.process import CURRENT


class Trace:
    """Lines of `seconds process event facts`.

    Attributes:
        bugs: exceptions that a loop's supervisor has caught, which are bugs unless the world
            was broken on purpose.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bugs: list[str] = []
        self.expected: tuple[type[BaseException], ...] = ()

    def note(self, who: str, what: str) -> None:
        """Add a line."""
        self.lines.append(f"{asyncio.get_running_loop().time():10.4f} {who:12} {what}")

    def digest(self) -> str:
        """Spell all lines in one hash."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()

    def take(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> Never:
        """Be structlog's last processor: what a living process logs becomes a line."""
        process = CURRENT.get()
        if process is not None and process.alive:
            if event.pop("exc_info", None):
                self._caught(process.name)
            name = event.pop("event")
            facts = " ".join(f"{key}={value}" for key, value in event.items())
            self.note(process.name, f"{name} {facts}")
        raise structlog.DropEvent

    def _caught(self, who: str) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, self.expected):
            self.bugs.append(f"{who}: {''.join(traceback.format_exception(error)[-6:])}")


@contextmanager
def recording(trace: Trace) -> Iterator[None]:
    """Have everything logged in the trace, and nowhere else."""
    before = structlog.get_config()
    structlog.configure(processors=[trace.take], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
