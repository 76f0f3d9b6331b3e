"""Connections into running containers, over a WebSocket, and what an ssh client must know first."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog
from aiohttp import WSMessage, WSMsgType, web

from phalanx_manager.http.ask import Ask, answer
from phalanx_manager.http.commands import (
    MAX_FRAME_BYTES,
    SEND_S,
    WrongFrameError,
    check_upgrade,
    from_client,
    not_running,
    open_stream,
    shown_end,
)
from phalanx_wire.api import SshRank, SshView
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Stream
from phalanx_wire.stream import STDIN, ConnectCall, Data, Eof

PING_S: Final = 10.0
"""Without one proxies cut a connection that stands still."""

_EOF: Final = '{"eof": true}'

log = structlog.get_logger(__name__)


class _Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text frame of the client: the end of its data."""

    eof: bool = False


async def known(ask: Ask) -> web.Response:
    """Tell the host keys of a session's ssh servers."""
    row = await ask.row()
    ranks = tuple(
        SshRank(one.rank, one.host_name, one.state.name.lower(), one.host_key or None)
        for one in row.kernels
    )
    return answer(SshView(row.session.id, row.session.name, row.session.attempt, ranks))


async def connect(ask: Ask) -> web.StreamResponse:
    """Connect to a port of a container, and relay both directions until both have ended."""
    row = await ask.row()
    kernel = ask.kernel(row)
    if kernel.state is not KernelState.RUNNING:
        raise not_running(kernel)
    check_upgrade(ask.request, "forward", "use `phalanx ssh` or `phalanx forward`")
    call = ConnectCall(kernel.id, ask.values.get("port", 0), ask.values.get("key", ""))
    with ask.turnstile.stream(ask.caller):
        async with open_stream(ask, kernel, call) as stream:
            log.info("forward.begun", kernel=kernel.id, port=call.port, user=ask.caller.user)
            return await _relay(ask.request, stream)


async def _relay(request: web.Request, stream: Stream) -> web.WebSocketResponse:
    # A connection may stand still as long as it likes. So pings keep proxies from cutting it, but
    # no answer is waited for behind data that nobody takes: whether the client is there at all,
    # TCP asks; see `guests`.
    socket = web.WebSocketResponse(max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=5.0)
    await socket.prepare(request)
    try:
        async with asyncio.TaskGroup() as tasks:
            beside = (
                tasks.create_task(from_client(socket, stream, _take)),
                tasks.create_task(_ping(socket)),
            )
            await _to_client(socket, stream)
            for task in beside:
                task.cancel()
        await _tell_end(socket, stream)
    except* (ConnectionError, TimeoutError):
        log.debug("forward.client_gone", stream=stream.number)
    return socket


async def _ping(socket: web.WebSocketResponse) -> None:
    while True:
        await asyncio.sleep(PING_S)
        async with asyncio.timeout(SEND_S):
            await socket.ping()


async def _to_client(socket: web.WebSocketResponse, stream: Stream) -> None:
    async for item in stream:
        async with asyncio.timeout(SEND_S):
            match item:
                case Data(data=data):
                    await socket.send_bytes(data)
                case Eof():
                    await socket.send_str(_EOF)
                case _:
                    continue


async def _tell_end(socket: web.WebSocketResponse, stream: Stream) -> None:
    if socket.closed:
        return
    async with asyncio.timeout(SEND_S):
        if stream.closed is not None and stream.closed.code:
            await socket.send_str(shown_end(stream.closed))
        await socket.close()


async def _take(message: WSMessage, stream: Stream) -> None:
    if message.type is WSMsgType.BINARY:
        await stream.write(STDIN, message.data)
    elif message.type is not WSMsgType.TEXT:
        raise WrongFrameError("frames are binary or text")
    elif msgspec.json.decode(message.data, type=_Control).eof:
        await stream.eof()
