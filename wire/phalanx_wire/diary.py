"""What a daemon writes down of what happens. Whoever reads it, slowly or not at all, holds up no
heartbeat: a terminal that was stopped, a full pipe, a journal whose disk hangs.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import threading
from types import TracebackType
from typing import Final, Self, TextIO

MOST_LINES: Final = 4096
_LAST_S: Final = 1.0


class Diary:
    """A logger for structlog whose lines a thread writes; those that do not fit are counted, not
    waited for. Made by `with`: at the end what was taken is written, within a second.
    """

    def __init__(self, file: TextIO | None) -> None:
        """Args: file: the system's; into None, as where a daemon was begun without an output, and
        into one of Python's alone nothing is written.
        """
        self._descriptor = -1
        if file is not None:
            with contextlib.suppress(io.UnsupportedOperation):
                self._descriptor = file.fileno()
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
