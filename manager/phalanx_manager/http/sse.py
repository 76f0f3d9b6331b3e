"""Server-sent events: each is on the wire at once, and silence is filled with comments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web

from phalanx_manager.http import guests

PING_S: Final = 15.0
WRITE_S: Final = 300.0
"""A client that takes nothing for so long is gone."""

_WAITING_BYTES: Final = 128 << 10
"""In the kernel for each client: thousands that do not read took all that it has for everybody."""

log = structlog.get_logger(__name__)


class Events:
    """One stream of events to one client.

    Attributes:
        response: what the handler returns in the end.
    """

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response
        self._lock = asyncio.Lock()

    async def send(self, data: bytes) -> None:
        """Write events that `spell` has made; waits while the client is slow.

        Raises:
            ConnectionError, TimeoutError: the client is gone; `stream` takes care of it.
        """
        async with self._lock, asyncio.timeout(WRITE_S):
            await self.response.write(data)

    async def ping(self) -> None:
        """Write comments for ever, so that both sides see a dead connection."""
        while True:
            await asyncio.sleep(PING_S)
            await self.send(b": still here\n\n")


def spell(data: bytes, name: str, event_id: str = "") -> bytes:
    """Spell one event; the data is JSON, so it has no line breaks."""
    head = f"id: {event_id}\n" if event_id else ""
    return head.encode() + b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


@asynccontextmanager
async def stream(request: web.Request) -> AsyncIterator[Events]:
    """Hold a stream open; the context ends early, without an error, when the client goes."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    try:
        await response.prepare(request)
        guests.bound(request, _WAITING_BYTES)
        events = Events(response)
        async with asyncio.TaskGroup() as tasks:
            pinging = tasks.create_task(events.ping())
            try:
                yield events
            finally:
                pinging.cancel()
        await response.write_eof()
    except* (ConnectionError, TimeoutError):
        log.debug("http.stream.client_gone", path=request.path)


def wants(request: web.Request) -> bool:
    """Tell whether the client asks for a stream of events."""
    return "text/event-stream" in request.headers.get("Accept", "")
