"""WebSockets of the API, and a command in a container over one.

A command's binary frames carry a channel's number in their first byte, then data; text frames are
JSON.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from phalanx_client.aio import AioTransport
from phalanx_client.failure import TRY_AGAIN, Broken, Failure, Refused, Unavailable
from phalanx_client.transport import Request
from phalanx_wire.api import Problem

STDIN, STDOUT, STDERR = 0, 1, 2
HEARTBEAT_S = 20.0
CLOSE_S = 5.0
MOST_CHARACTERS = 60_000
"""Of a command in an address; the manager takes 64 KiB in a line."""

WEBSOCKET_EXPECTED = 426
AWAY = 503
AWAY_WITHIN_S = 10.0
AWAY_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall run.

    Attributes:
        size: rows and columns of the terminal, None for none.
    """

    rank: int
    command: Sequence[str]
    stdin: bool = False
    size: tuple[int, int] | None = None

    def query(self) -> dict[str, str]:
        """As the API takes it."""
        found = {"rank": str(self.rank), "stdin": str(int(self.stdin))}
        if self.size is not None:
            found |= {"tty": "1", "rows": str(self.size[0]), "columns": str(self.size[1])}
        return found | {"command": json.dumps(list(self.command))}


class Process:
    """The running command."""

    def __init__(self, url: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._url = url
        self._socket = socket
        self.exit_code: int | None = None

    async def write(self, data: bytes) -> None:
        """Give it input; waits while it takes none."""
        await self._socket.send_bytes(bytes([STDIN]) + data)

    async def end_input(self) -> None:
        """Say that there is no more input."""
        await self._socket.send_str('{"eof": true}')

    async def feed(self, pieces: AsyncIterable[bytes]) -> None:
        """Give it a whole input. That it ends before is told by its output, not here."""
        try:
            async for piece in pieces:
                await self.write(piece)
            await self.end_input()
        except ConnectionResetError:
            return

    async def resize(self, rows: int, columns: int) -> None:
        """Tell it the terminal's new size."""
        await self._socket.send_str(json.dumps({"resize": [rows, columns]}))

    async def signal(self, number: int) -> None:
        """Send a signal to all tasks of a step."""
        await self._socket.send_str(json.dumps({"signal": number}))

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(STDOUT or STDERR, data) until it ends; then `exit_code` is set.

        Raises:
            Refused: it could not be run, or was cut off.
            Broken: the connection ended before it did.
        """
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.BINARY and message.data:
                yield message.data[0], message.data[1:]
            elif message.type is aiohttp.WSMsgType.TEXT:
                self._final(msgspec.json.decode(message.data))
                if self.exit_code is not None:
                    return
        raise Broken(
            self._url,
            "the connection ended before the command did",
            "It may still run; look with: phalanx exec SESSION -- ps",
        )

    def _final(self, said: dict[str, Any]) -> None:
        if "problem" in said:
            raise Refused(msgspec.convert(said["problem"], Problem))
        if "exit_code" in said:
            self.exit_code = int(said["exit_code"])


@asynccontextmanager
async def execute(transport: AioTransport, ref: str, wish: Wish) -> AsyncIterator[Process]:
    """Run a command; leaving the context ends it.

    Raises:
        Failure: it is too long to be sent.
        Refused: it could not be run.
    """
    query = wish.query()
    if (length := len(quote(query["command"]))) > MOST_CHARACTERS:
        raise Failure(
            f"the command is too long to be sent ({length} characters as part of an address, and "
            f"{MOST_CHARACTERS} may be); write it into a file, `phalanx cp` that, and run it"
        )
    async with opened(transport, of(ref, "exec"), query, heartbeat=HEARTBEAT_S) as socket:
        yield Process(transport.url, socket)


def of(ref: str, what: str) -> str:
    """The path of what a session offers."""
    return f"/v1/sessions/{quote(ref, safe='')}/{what}"


@asynccontextmanager
async def opened(
    transport: AioTransport,
    path: str,
    query: dict[str, str],
    *,
    heartbeat: float | None = None,
    silence_s: float | None = None,
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket, closed at the end. An agent that is away is waited for: after a restart of the
    manager they all are, for a moment.

    Args:
        heartbeat: seconds between questions whether the manager is there.
        silence_s: who reads gives up after so long without a word of the manager's.

    Raises:
        Refused: with the manager's problem.
        Unavailable: the manager can't be reached.
    """
    receive = aiohttp.ClientWSTimeout(ws_receive=silence_s, ws_close=CLOSE_S)

    async def handshake() -> aiohttp.ClientWebSocketResponse:
        url = transport.root + path
        return await transport.http.ws_connect(
            url, params=query, heartbeat=heartbeat, max_msg_size=4 << 20, timeout=receive
        )

    try:
        socket = await _patient(transport, handshake)
    except aiohttp.WSServerHandshakeError as error:
        raise await _refusal(transport, path, query, error.status) from error
    except (aiohttp.ClientError, OSError) as error:
        raise transport.trouble(error) from error
    async with socket:
        yield socket


async def _patient(
    transport: AioTransport, handshake: Callable[[], Awaitable[aiohttp.ClientWebSocketResponse]]
) -> aiohttp.ClientWebSocketResponse:
    """Try again while the agent is away, up to a bound; the last refusal is raised."""
    waited_s = 0.0
    while True:
        try:
            return await handshake()
        except aiohttp.WSServerHandshakeError as error:
            if error.status != AWAY or waited_s >= AWAY_WITHIN_S:
                raise
        if not waited_s:
            transport.on_wait(Unavailable("the container's agent", "is not connected", ""))
        await transport.pause(AWAY_PAUSE_S)
        waited_s += AWAY_PAUSE_S


async def _refusal(
    transport: AioTransport, path: str, query: dict[str, str], status: int
) -> Failure:
    """Why there is no WebSocket: a refused handshake has no body, the same request without one has.

    Returns:
        The manager's own sentence, or ours if it would take the request by now.
    """
    async with transport.open(Request("GET", path, tuple(query.items()))) as reply:
        body = b"".join([piece async for piece in reply.pieces()])
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        problem = Problem("unexplained", f"the manager refused it ({status})", status)
    if problem.status == WEBSOCKET_EXPECTED:
        return Failure(f"the manager refused it ({status}); try again", TRY_AGAIN)
    return Refused(problem)
