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

_AHEAD_LINES: Final = 2000
_BATCH_LINES: Final = 500


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


async def send_lines(lines: AsyncIterator[LogLine], stream: Stream) -> None:
    """Send lines as they come: many at once where there are many, one alone without delay.

    Raises:
        StreamClosed: the caller has left.
        Unavailable: as the lines do.
    """
    ahead: asyncio.Queue[LogLine | None] = asyncio.Queue(_AHEAD_LINES)
    await alongside(_send(ahead, stream), _read(lines, ahead), left(stream))


async def _read(lines: AsyncIterator[LogLine], ahead: asyncio.Queue[LogLine | None]) -> None:
    async for line in lines:
        await ahead.put(line)
    await ahead.put(None)


async def _send(ahead: asyncio.Queue[LogLine | None], stream: Stream) -> None:
    while True:
        batch = [await ahead.get()]
        while len(batch) < _BATCH_LINES and not ahead.empty():
            batch.append(ahead.get_nowait())
        for chunk in loglines.pack(line for line in batch if line is not None):
            await stream.write(STDOUT, chunk)
        if batch[-1] is None:
            return
