"""Commands in running containers, over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog
from aiohttp import WSMessage, WSMsgType, web

from phalanx_manager.core.model import Kernel
from phalanx_manager.http.ask import Ask
from phalanx_manager.http.guests import bound
from phalanx_manager.http.problems import of_stream, refused
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.shares import Crowded
from phalanx_wire.api import Problem
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.stream import STDIN, WINDOW_BYTES, Call, Closed, Data, ExecCall

MAX_FRAME_BYTES: Final = 1 << 20
HEARTBEAT_S: Final = 20.0
_OPEN_S: Final = 10.0
SEND_S: Final = 300.0

log = structlog.get_logger(__name__)


class _Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text frame of the client: a new size, or the end of its input."""

    resize: tuple[int, int] | None = None
    eof: bool = False


class _End(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last text frame: one of the two."""

    exit_code: int | None = None
    problem: Problem | None = None


class WrongFrameError(Exception):
    """The client sent what makes no sense."""


async def run(ask: Ask) -> web.StreamResponse:
    """Run a command, or the login shell, and relay its streams."""
    row = await ask.row()
    kernel = ask.kernel(row)
    values = ask.values
    command, shell = values.get("command", ()), values.get("shell", False)
    if bool(command) == shell:
        title = "give either `command` or `shell=1`"
        raise refused("invalid_parameter", 400, title, "command", '`command=["ls","-l"]`')
    if kernel.state is not KernelState.RUNNING:
        raise not_running(kernel)
    check_upgrade(ask.request, "exec", "use `phalanx exec`")
    call = ExecCall(
        kernel.id,
        command,
        shell,
        tty=values.get("tty", False),
        stdin=values.get("stdin", False),
        rows=values.get("rows", 24),
        columns=values.get("columns", 80),
    )
    with ask.turnstile.stream(ask.caller):
        async with open_stream(ask, kernel, call) as stream:
            log.info("exec.begun", kernel=kernel.id, user=ask.caller.user)
            return await _relay(ask.request, stream)


@asynccontextmanager
async def open_stream(ask: Ask, kernel: Kernel, call: Call) -> AsyncIterator[Stream]:
    """Open a stream to a kernel's agent, or refuse; it is closed at the end."""
    if kernel.agent is None:
        raise not_running(kernel)
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_OPEN_S):
                stream = await stack.enter_async_context(ask.open(kernel.agent, call))
        except Crowded as error:
            raise refused(
                "too_many_requests", 429, f"{error.what} {error.doing}", hint=error.hint
            ) from error
        except (Unavailable, TimeoutError) as error:
            why = str(error) or f"agent {kernel.agent} takes nothing"
            raise refused("unavailable", 503, why, hint="try again") from error
        if stream.window < WINDOW_BYTES:  # of a user who has many
            bound(ask.request, stream.window)
        yield stream


def not_running(kernel: Kernel) -> Exception:
    """Refuse what needs a running container."""
    who = f"rank {kernel.rank} ({kernel.host_name})"
    if kernel.ended:
        hint = "`phalanx logs` still has its output"
        return refused("not_running", 409, f"{who} has ended", hint=hint)
    return refused("not_running", 409, f"{who} is {kernel.state.name.lower()}")


def check_upgrade(request: web.Request, what: str, hint: str) -> None:
    """Refuse what is no WebSocket, and pages of other sites: a browser sends its cookies and
    proxies' tokens along.
    """
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise refused("foreign_origin", 403, "a page of another site may not open this")
    if not web.WebSocketResponse().can_prepare(request).ok:
        raise refused("websocket_expected", 426, f"{what} is a WebSocket", hint=hint)


async def _relay(request: web.Request, stream: Stream) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(
        heartbeat=HEARTBEAT_S, max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=5.0
    )
    await socket.prepare(request)
    try:
        async with asyncio.TaskGroup() as tasks:
            upward = tasks.create_task(from_client(socket, stream, _take))
            await _to_client(socket, stream)
            upward.cancel()
        await _tell_end(socket, stream)
    except* (ConnectionError, TimeoutError):
        log.debug("exec.client_gone", stream=stream.number)
    return socket


async def _tell_end(socket: web.WebSocketResponse, stream: Stream) -> None:
    if socket.closed:
        return
    async with asyncio.timeout(SEND_S):
        await socket.send_str(shown_end(stream.closed))
        await socket.close()


def shown_end(closed: Closed | None) -> str:
    """Spell how a stream ended."""
    problem = of_stream(closed) if closed is not None and closed.code else None
    end = _End(closed.exit_code if closed is not None and problem is None else None, problem)
    return msgspec.json.encode(end).decode()


async def _to_client(socket: web.WebSocketResponse, stream: Stream) -> None:
    async for item in stream:
        if isinstance(item, Data):
            async with asyncio.timeout(SEND_S):
                await socket.send_bytes(bytes([item.channel & 0xFF]) + item.data)


async def from_client(
    socket: web.WebSocketResponse,
    stream: Stream,
    take: Callable[[WSMessage, Stream], Awaitable[None]],
) -> None:
    """Relay what the client sends until it is gone, which ends the stream. `take` reads a frame,
    and raises `WrongFrameError` or msgspec's error for one that makes no sense.
    """
    try:
        async for message in socket:
            await take(message, stream)
    except StreamClosed:
        return
    except (WrongFrameError, msgspec.MsgspecError) as error:
        await stream.close(code="bad_frame", why=str(error))
        return
    await stream.close(code="cancelled", why="the client has gone")


async def _take(message: WSMessage, stream: Stream) -> None:
    if message.type is WSMsgType.BINARY:
        data: bytes = message.data
        if data[:1] != bytes([STDIN]):
            raise WrongFrameError("a binary frame begins with the byte 0")
        await stream.write(STDIN, data[1:])
        return
    if message.type is not WSMsgType.TEXT:
        raise WrongFrameError("frames are binary or text")
    control = msgspec.json.decode(message.data, type=_Control)
    if control.resize is not None:
        rows, columns = control.resize
        if not (0 < rows < 1 << 16 and 0 < columns < 1 << 16):
            raise WrongFrameError("a terminal has 1 to 65535 rows and columns")
        await stream.resize(rows, columns)
    if control.eof:
        await stream.eof()
