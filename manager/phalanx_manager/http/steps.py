"""Steps of tasks in running sessions, over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec
import structlog
from aiohttp import WSMessage, WSMsgType, web

from phalanx_manager.core.model import Refusal
from phalanx_manager.http.ask import Ask
from phalanx_manager.http.commands import (
    HEARTBEAT_S,
    MAX_FRAME_BYTES,
    SEND_S,
    WrongFrameError,
    check_upgrade,
)
from phalanx_manager.http.problems import refused
from phalanx_wire.api import Problem
from phalanx_wire.mux import StreamClosed
from phalanx_wire.step import StepSpec
from phalanx_wire.stream import SIGNAL, STDIN, Closed, Data, Eof, Resize

WISH_S: Final = 15.0
_FIRST: Final = "the first frame is text: what shall be run, as JSON"

log = structlog.get_logger(__name__)


class _Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text frame of the client: a new size, a signal for all tasks, or the end of its input."""

    resize: tuple[int, int] | None = None
    signal: int = 0
    eof: bool = False


class _End(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last text frame: one of the two."""

    exit_code: int | None = None
    problem: Problem | None = None


class _Client:
    """The client of a step; see `rpc.steps.Asker`. One that makes a `mistake` counts as gone."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self.mistake: Problem | None = None

    async def __aiter__(self) -> AsyncIterator[Data | Eof | Resize]:
        try:
            async for message in self._socket:
                yield _read(message)
        except (WrongFrameError, msgspec.MsgspecError) as error:
            self.mistake = Problem("bad_frame", str(error), 400)

    async def write(self, channel: int, data: bytes) -> None:
        try:
            async with asyncio.timeout(SEND_S):
                await self._socket.send_bytes(bytes([channel & 0xFF]) + data)
        except (ConnectionError, TimeoutError) as error:
            raise StreamClosed(Closed(0, code="cancelled", why="the client is gone")) from error


async def run(ask: Ask) -> web.StreamResponse:
    """Run a step, and relay its streams: its first frame says what."""
    row = await ask.row()
    if row.session.state != "running":
        where = f"session {row.session.name} is {row.session.state}"
        raise refused("not_running", 409, f"{where}: no task can run there")
    check_upgrade(ask.request, "a step", "use `srun`")
    with ask.turnstile.stream(ask.caller):
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=5.0
        )
        await socket.prepare(ask.request)
        spec = await _wish(socket)
        if isinstance(spec, Problem):
            return await _tell(socket, _End(problem=spec))
        client = _Client(socket)
        code = await ask.doors.steps.run(await ask.again(row), spec, client)
        if client.mistake is not None:
            return await _tell(socket, _End(problem=client.mistake))
        if isinstance(code, Refusal):
            problem = Problem(code.code, code.title, code.status, field=code.field, hint=code.hint)
            return await _tell(socket, _End(problem=problem))
        return await _tell(socket, _End(exit_code=code))


async def _wish(socket: web.WebSocketResponse) -> StepSpec | Problem:
    try:
        async with asyncio.timeout(WISH_S):
            message = await socket.receive()
    except TimeoutError:
        return Problem("too_slow", _FIRST, 408)
    if message.type is not WSMsgType.TEXT:
        return Problem("bad_frame", _FIRST, 400)
    try:
        return msgspec.json.decode(message.data, type=StepSpec)
    except (msgspec.MsgspecError, RecursionError) as error:
        return Problem("bad_frame", f"{_FIRST}: {error}", 400)


async def _tell(socket: web.WebSocketResponse, end: _End) -> web.WebSocketResponse:
    if not socket.closed:
        try:
            async with asyncio.timeout(SEND_S):
                await socket.send_str(msgspec.json.encode(end).decode())
                await socket.close()
        except (ConnectionError, TimeoutError):
            log.debug("step.client_gone")
    return socket


def _read(message: WSMessage) -> Data | Eof | Resize:
    if message.type is WSMsgType.BINARY:
        data: bytes = message.data
        if data[:1] != bytes([STDIN]):
            raise WrongFrameError("a binary frame begins with the byte 0")
        return Data(0, STDIN, data[1:])
    if message.type is not WSMsgType.TEXT:
        raise WrongFrameError("frames are binary or text")
    control = msgspec.json.decode(message.data, type=_Control)
    if control.resize is not None:
        rows, columns = control.resize
        if not (0 < rows < 1 << 16 and 0 < columns < 1 << 16):
            raise WrongFrameError("a terminal has 1 to 65535 rows and columns")
        return Resize(0, rows, columns)
    if 0 < control.signal < 65:
        return Data(0, SIGNAL, bytes([control.signal]))
    if control.eof:
        return Eof(0)
    raise WrongFrameError("a text frame is a size, a signal, or the end of the input")
