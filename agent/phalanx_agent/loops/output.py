"""Lines of output on their way to the manager."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

from phalanx_agent.loops.alongside import alongside, left
from phalanx_wire import loglines
from phalanx_wire.api import LogLine
from phalanx_wire.ids import KernelId
from phalanx_wire.mux import Stream
from phalanx_wire.stream import STDOUT

Turn = Callable[[], AbstractAsyncContextManager[None]]


class OutputStore(Protocol):
    """The output of containers that are gone."""

    def has(self, kernel: KernelId) -> bool:
        """Tell whether a whole copy is there."""

    def lines(
        self, kernel: KernelId, *, since_ns: int = 0, tail: int = -1
    ) -> Iterator[Iterator[LogLine]]:
        """Read a copy, in pieces as an engine gives them; some may have no line."""


async def kept(
    store: OutputStore, kernel: KernelId, *, since_ns: int, tail: int
) -> AsyncIterator[Iterator[LogLine]]:
    """Read a kept output; `send_lines` takes it as it takes an engine's."""
    for piece in store.lines(kernel, since_ns=since_ns, tail=tail):
        yield piece


async def send_lines(
    pieces: AsyncIterator[Iterator[LogLine]],
    stream: Stream,
    turn: Turn,
) -> None:
    """Send lines as they come: together what is there together, one alone without delay.

    Args:
        pieces: taken apart as they are iterated.
        turn: in which one of them is; none is held while an engine or the caller is waited for.

    Raises:
        StreamClosed: the caller has left.
        Unavailable: as the pieces do.
    """
    await alongside(_send(pieces, stream, turn), left(stream))


async def _send(
    pieces: AsyncIterator[Iterator[LogLine]],
    stream: Stream,
    turn: Turn,
) -> None:
    async with aclosing(pieces):  # type: ignore[type-var] # what it has open is not left to chance
        async for piece in pieces:
            async with turn():
                chunks = list(loglines.pack(piece))
            for chunk in chunks:
                await stream.write(STDOUT, chunk)
