"""Lines of output on their way to the manager."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Final, Protocol

from phalanx_agent.loops.alongside import alongside, left
from phalanx_wire import loglines
from phalanx_wire.api import LogLine
from phalanx_wire.ids import KernelId
from phalanx_wire.mux import Stream
from phalanx_wire.stream import STDOUT

_AHEAD_BYTES: Final = 256 << 10
_LINE_BYTES: Final = 100
"""What a line takes beside its text."""


class OutputStore(Protocol):
    """The output of containers that are gone."""

    def has(self, kernel: KernelId) -> bool:
        """Tell whether a whole copy is there."""

    def lines(self, kernel: KernelId, *, since_ns: int = 0, tail: int = -1) -> Iterator[LogLine]:
        """Read a copy."""


async def kept(
    store: OutputStore, kernel: KernelId, *, since_ns: int, tail: int
) -> AsyncIterator[LogLine]:
    """Read a kept output; `send_lines` takes it as it takes an engine's."""
    for line in store.lines(kernel, since_ns=since_ns, tail=tail):
        yield line


class _Ahead:
    """Lines that were read and are not sent yet: of no more memory than they are worth, however
    long each of them is.
    """

    def __init__(self) -> None:
        self._lines: list[LogLine] = []
        self._held = 0
        self._over = False
        self._changed = asyncio.Event()

    async def put(self, line: LogLine) -> None:
        """Add a line, when there is room for it."""
        while self._held >= _AHEAD_BYTES:
            await self._change()
        self._lines.append(line)
        self._held += len(line.text) + _LINE_BYTES
        self._changed.set()

    def end(self) -> None:
        """Say that no more will come."""
        self._over = True
        self._changed.set()

    async def take(self) -> list[LogLine]:
        """Take all there is, when there is something; nothing is the end."""
        while not self._lines and not self._over:
            await self._change()
        taken, self._lines, self._held = self._lines, [], 0
        self._changed.set()
        return taken

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


async def send_lines(lines: AsyncIterator[LogLine], stream: Stream) -> None:
    """Send lines as they come: many at once where there are many, one alone without delay.

    Raises:
        StreamClosed: the caller has left.
        Unavailable: as the lines do.
    """
    ahead = _Ahead()
    await alongside(_send(ahead, stream), _read(lines, ahead), left(stream))


async def _read(lines: AsyncIterator[LogLine], ahead: _Ahead) -> None:
    async for line in lines:
        await ahead.put(line)
    ahead.end()


async def _send(ahead: _Ahead, stream: Stream) -> None:
    while batch := await ahead.take():
        for chunk in loglines.pack(batch):
            await stream.write(STDOUT, chunk)
