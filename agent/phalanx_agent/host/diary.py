"""What the agent writes down of what happens. Whoever reads it, slowly or not at all, holds up no
heartbeat: a terminal that was stopped, a full pipe, a journal whose disk hangs.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from typing import Final, TextIO

import structlog

MOST_LINES: Final = 4096
_LAST_S: Final = 1.0


class Diary:
    """A file for lines that are written elsewhere; those that do not fit are counted, not waited
    for.
    """

    def __init__(self, file: TextIO | None) -> None:
        """Args: file: None writes nothing, as where the agent was begun without an output."""
        self._descriptor = -1 if file is None else file.fileno()
        self._lines: queue.Queue[str | None] = queue.Queue(MOST_LINES)
        self._left_out = 0
        self._writer = threading.Thread(target=self._write_all, name="diary", daemon=True)
        self._writer.start()

    def write(self, text: str) -> None:
        """Take a line."""
        line = f"{text}\n"
        try:
            if self._left_out:
                self._lines.put_nowait(f"event='diary.left-out' lines={self._left_out}\n")
                self._left_out = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._left_out += 1

    debug = info = warning = error = critical = write  # as structlog calls it

    def close(self) -> None:
        """Let what was taken be written, within a second."""
        try:
            self._lines.put(None, timeout=_LAST_S)
        except queue.Full:
            return
        self._writer.join(_LAST_S)

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            left = line.encode(errors="backslashreplace")
            try:
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError:
                continue  # nobody reads it any more; there is nobody to tell, either


def configure() -> Diary:
    """Write down one line per event; PHALANX_LOG=debug tells every operation too."""
    diary = Diary(sys.stdout)
    level = logging.DEBUG if os.environ.get("PHALANX_LOG") == "debug" else logging.INFO
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: diary,
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
    )
    return diary
