"""Lets connections to the API in: so many at most, and whoever asks nothing makes room."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Never

import structlog
from aiohttp import web

MOST: Final = 8192
GONE_S: Final = 300.0
"""Whose machine has taken nothing, or said nothing, for so long is gone; it may have left without
a word: a lid was closed, a cable pulled. By itself the kernel gives up after hours, and with
something to be sent after a quarter of one.
"""

_PAUSE_S: Final = 1.0
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10))

log = structlog.get_logger(__name__)


def room() -> int:
    """Tell how many connections there is room for; half of the descriptors are the agents'."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else min(MOST, soft // 2)


def bound(request: web.Request, most: int) -> None:
    """Let no more bytes wait in the kernel, either way, which makes a connection slower: all of a
    machine share the memory that it has for them, the agents' too.
    """
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None:
        return
    with contextlib.suppress(OSError):  # it may be gone already, which its handler will find
        for direction in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            connection.setsockopt(socket.SOL_SOCKET, direction, most // 2)  # kernels double it


class Guests:
    """The connections of one server.

    asyncio's own servers try, and log, for ever faster while there is no descriptor for whoever
    knocks; so connections are accepted here.

    Args of the constructor:
        most: how many may be there at once.
        gone_s: after how long of silence one is ended.
    """

    def __init__(self, most: int, gone_s: float = GONE_S) -> None:
        self._most = most
        self._gone_s = gone_s
        self._served: set[web.RequestHandler] = set()

    @contextmanager
    def serve(self, request: web.Request) -> Iterator[None]:
        """Leave a connection alone for as long as a request of it is served."""
        self._served.add(request.protocol)
        try:
            yield
        finally:
            self._served.discard(request.protocol)

    async def let_in(self, listener: socket.socket, server: web.Server) -> Never:
        """Accept connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                line, _address = await loop.sock_accept(listener)
                if self._make_room(server):
                    self._ask_after(line)
                    await loop.connect_accepted_socket(server, line)
                else:
                    log.warning("http.full", connections=self._most)
                    line.close()
            except ConnectionError:
                continue  # it has gone before it was let in
            except OSError as error:
                log.warning("http.not_accepted", why=error.strerror, again_in_s=_PAUSE_S)
                await asyncio.sleep(_PAUSE_S)

    def _ask_after(self, line: socket.socket) -> None:
        """Have the kernel find out whether the other side is still there."""
        if line.family == socket.AF_UNIX:
            return
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in _KEEPALIVE:
            line.setsockopt(socket.IPPROTO_TCP, option, seconds)
        gone_ms = round(self._gone_s * 1000)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, gone_ms)

    def _make_room(self, server: web.Server) -> bool:
        """End what has been there longest of all that ask nothing; False when all are served."""
        open_now = [
            (guest, guest.transport)
            for guest in server.connections
            if guest.transport is not None and not guest.transport.is_closing()
        ]
        if len(open_now) < self._most:
            return True
        for guest, transport in open_now:
            if guest not in self._served:
                transport.abort()
                return True
        return False
