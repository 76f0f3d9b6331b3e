"""The user's terminal: raw while a program of a container has it, and as it was afterwards."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import threading
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from phalanx_client.undo import undone

PIECE = 32 << 10


def size() -> tuple[int, int]:
    """Rows and columns; a terminal that does not know its own has the usual ones."""
    found = os.get_terminal_size(sys.stdout.fileno())
    return found.lines or 24, found.columns or 80


@contextmanager
def raw() -> Iterator[None]:
    """Pass every key on, Ctrl-C too."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def again(when: int = termios.TCSANOW) -> None:
        with suppress(termios.error):  # a terminal that hung up
            termios.tcsetattr(descriptor, when, before)

    try:
        with undone(again):
            tty.setraw(descriptor, termios.TCSANOW)
            yield
    finally:
        again(termios.TCSADRAIN)


class Keyboard:
    """Standard input as it comes, read by a thread: it may be a terminal, a pipe or a file.

    The thread reads one piece ahead and waits until it is taken, so that a program which takes no
    input slows its writer. It can't be stopped while it reads; the process's end ends it.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._stopped = False
        self._thread = threading.Thread(target=self._read, daemon=True, name="keyboard")

    async def pieces(self) -> AsyncIterator[bytes]:
        """What is typed, until its end."""
        self._thread.start()
        while piece := await self._pieces.get():
            yield piece

    def stop(self) -> None:
        """Take no more."""
        self._stopped = True

    def _read(self) -> None:
        while not self._stopped:
            try:
                piece = os.read(sys.stdin.fileno(), PIECE)
            except OSError:
                piece = b""  # a terminal that hung up
            if self._stopped:
                return
            try:
                asyncio.run_coroutine_threadsafe(self._pieces.put(piece), self._loop).result()
            except RuntimeError:
                return  # the loop has ended meanwhile
            if not piece:
                return
