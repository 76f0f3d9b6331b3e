"""Output in whole lines, so that those of many tasks do not run into each other."""

from __future__ import annotations

from typing import Final

MAX_LINE: Final = 64 << 10
"""A longer line is passed on in pieces, each as if it were one."""


class Lines:
    """What one channel of a task has written and has not ended with a line's end.

    Args of the constructor:
        label: begins each line.
    """

    def __init__(self, label: bytes = b"") -> None:
        self._label = label
        self._held = bytearray()

    def take(self, data: bytes) -> bytes:
        """Add output; the lines that are whole now."""
        self._held += data
        end = self._held.rfind(b"\n") + 1
        if not end and len(self._held) > MAX_LINE:
            end = len(self._held)
        whole = bytes(self._held[:end])
        del self._held[:end]
        return self._labelled(whole)

    def rest(self) -> bytes:
        """Give what was never ended."""
        whole = bytes(self._held)
        self._held.clear()
        return self._labelled(whole)

    def _labelled(self, whole: bytes) -> bytes:
        if not self._label:
            return whole
        return b"".join(self._label + line for line in whole.splitlines(keepends=True))
