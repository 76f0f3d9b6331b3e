"""A connection to a port of a container, over a WebSocket of the API.

Binary frames are data, `{"eof": true}` is the end of data of one direction, and a problem comes as
the last text frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import aiohttp
import msgspec

from phalanx_client.aio import AioTransport
from phalanx_client.failure import Broken, Refused
from phalanx_client.websocket import of, opened
from phalanx_wire.api import Problem

SILENCE_S: Final = 65.0
"""The manager says something every 10 s; after this long without a word it is not there."""


class Sink(Protocol):
    """Where a connection's data goes."""

    async def write(self, data: bytes) -> None:
        """Take data; waits while it can't."""

    async def end(self) -> None:
        """There will be no more."""


class _Said(msgspec.Struct, frozen=True):
    """A text frame of the manager's."""

    eof: bool = False
    problem: Problem | None = None


class Tunnel:
    """The connection."""

    def __init__(self, url: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._url = url
        self._socket = socket

    async def relay(self, source: AsyncIterator[bytes], sink: Sink) -> None:
        """Pass data on in both directions until both have ended.

        Raises:
            Refused: it could not be connected, or was cut off.
            Broken: the manager has gone away.
            OSError: our own end broke.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                feeder = tasks.create_task(self._feed(source))
                await self._drain(sink)
                feeder.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _feed(self, source: AsyncIterator[bytes]) -> None:
        try:
            async for piece in source:
                await self._socket.send_bytes(piece)
            await self._socket.send_str('{"eof": true}')
        except ConnectionResetError:
            return  # it has ended; who reads says how

    async def _drain(self, sink: Sink) -> None:
        ended = False
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    await sink.write(message.data)
                elif message.type is aiohttp.WSMsgType.TEXT:
                    said = msgspec.json.decode(message.data, type=_Said)
                    if said.problem is not None:
                        raise Refused(said.problem)
                    ended = ended or said.eof
                    if said.eof:
                        await sink.end()
        except TimeoutError:
            ended = False
        if not ended:
            raise Broken(self._url, "the connection ended early", "Is the manager still up?")


@asynccontextmanager
async def tunnel(
    transport: AioTransport, ref: str, rank: int, *, port: int | None = None, key: str = ""
) -> AsyncIterator[Tunnel]:
    """Connect to a port of a container; leaving the context cuts the connection.

    Args:
        port: the ssh server's when it is None.
        key: a public key that the ssh server lets in from now on.

    Raises:
        Refused, Unavailable: as `websocket.opened`.
    """
    query = {"rank": str(rank)}
    query |= {"port": str(port)} if port is not None else {}
    query |= {"key": key} if key else {}
    async with opened(transport, of(ref, "forward"), query, silence_s=SILENCE_S) as socket:
        yield Tunnel(transport.url, socket)
