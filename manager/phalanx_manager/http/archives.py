"""Files into and out of containers, as tar archives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NoReturn

from aiohttp import web

from phalanx_manager.core.model import Kernel
from phalanx_manager.http import bodies
from phalanx_manager.http.ask import Ask, answer
from phalanx_manager.http.commands import not_running, open_stream
from phalanx_manager.http.problems import Refused, of_stream, refused
from phalanx_wire.api import UploadCreated
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.stream import STDIN, Data, ReadCall, WriteCall

MAX_ARCHIVE_BYTES: Final = 64 << 30
_FIRST_S: Final = 60.0
_PIECE_S: Final = 300.0
_UNPACK_S: Final = 590.0
"""Agents unpack when all has come; clients wait for ten minutes."""


@asynccontextmanager
async def _copy(ask: Ask, kernel: Kernel, call: ReadCall | WriteCall) -> AsyncIterator[Stream]:
    async with ask.turnstile.copy(ask.caller), open_stream(ask, kernel, call) as stream:
        yield stream


async def read(ask: Ask) -> web.StreamResponse:
    """Send a path of a container."""
    row = await ask.row()
    kernel = ask.kernel(row)
    if kernel.state is KernelState.REMOVED or (not kernel.container_id and kernel.agent is None):
        raise not_running(kernel)
    async with _copy(ask, kernel, ReadCall(kernel.id, ask.values["path"])) as stream:
        first = await _next(stream, _FIRST_S)
        if first is None:
            _raise_end(stream)
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
        await response.prepare(ask.request)
        piece: bytes | None = first
        while piece is not None:
            async with asyncio.timeout(_PIECE_S):
                await response.write(piece)
            piece = await _next(stream, _PIECE_S)
        if stream.closed is not None and stream.closed.code:
            # Too late for a problem: an archive that is cut off must look so.
            if ask.request.transport is not None:
                ask.request.transport.abort()
            return response
        await response.write_eof()
        return response


async def write(ask: Ask) -> web.Response:
    """Unpack an archive in a folder of a container."""
    row = await ask.row()
    kernel = ask.kernel(row)
    if kernel.ended or not kernel.container_id:
        raise not_running(kernel)
    pieces = bodies.pieces(ask.request, MAX_ARCHIVE_BYTES)
    async with _copy(ask, kernel, WriteCall(kernel.id, ask.values["path"])) as stream:
        try:
            async for piece in pieces:
                async with asyncio.timeout(_PIECE_S):
                    await stream.write(STDIN, piece)
            await stream.eof()
            await _next(stream, _UNPACK_S)
        except StreamClosed:
            pass  # `closed` says why
        except TimeoutError as error:
            why = f"agent {kernel.agent} takes nothing"
            raise refused("unavailable", 503, why, hint="try again") from error
        if stream.closed is None or stream.closed.code:
            _raise_end(stream)
    return web.Response(status=204)


async def _next(stream: Stream, timeout_s: float) -> bytes | None:
    """The next piece of the archive; None at its end."""
    async with asyncio.timeout(timeout_s):
        async for item in stream:
            if isinstance(item, Data):
                return item.data
    return None


def _raise_end(stream: Stream) -> NoReturn:
    if stream.closed is None:
        raise refused("unavailable", 503, "the agent did not answer", hint="try again")
    raise Refused(of_stream(stream.closed))


async def upload(ask: Ask) -> web.Response:
    """Keep an archive that specs may name."""
    uploads = ask.doors.uploads
    pieces = bodies.pieces(ask.request, uploads.max_bytes)
    digest, size = await uploads.store(ask.caller.user, pieces)
    snapshot = await ask.doors.store.load()
    named = {row.session.spec.upload for row in snapshot.sessions.values()}
    uploads.forget({name for name in named if name is not None})
    return answer(UploadCreated(digest, size), 201)
