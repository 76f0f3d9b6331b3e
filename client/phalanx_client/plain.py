"""HTTP by the standard library, blocking: it starts ten times faster than an event loop's.

Its coroutines never suspend, so `blocking.finish` can run them without an event loop.
"""

from __future__ import annotations

import http.client
import socket
import time
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

from phalanx_client.config import Manager
from phalanx_client.failure import Broken, Unavailable
from phalanx_client.transport import CONNECT_S, Request

PIECE = 64 << 10


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CONNECT_S)
        self._path = path

    def connect(self) -> None:
        """Open the socket in place of a TCP connection."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_S)
        self.sock.connect(self._path)


class PlainReply:
    """A reply whose body is still on the wire."""

    def __init__(self, url: str, response: http.client.HTTPResponse) -> None:
        self._url = url
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in response.getheaders()}

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes."""
        try:
            while piece := self._response.read1(PIECE):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise Broken(self._url, _reason(error), "Is the manager still up?") from error


class PlainTransport:
    """One connection per request."""

    def __init__(self, manager: Manager) -> None:
        self._url = manager.url
        self._address = urllib.parse.urlsplit(manager.url)
        self._token = manager.token

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[PlainReply]:
        """See `Transport.open`."""
        connection = self._connect()
        try:
            yield PlainReply(self._url, self._exchange(connection, request))
        finally:
            connection.close()

    async def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop here

    async def close(self) -> None:
        """Nothing is kept."""

    def _connect(self) -> http.client.HTTPConnection:
        connection = self._connection()
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:  # the latter: no such name can exist
            raise Unavailable(
                f"the manager at {self._url}",
                f"can't be reached ({_reason(error)})",
                "Is it running? See --url, PHALANX_URL.",
            ) from error
        return connection

    def _connection(self) -> http.client.HTTPConnection:
        if self._address.scheme == "unix":
            return UnixConnection(self._address.path)
        host = self._address.hostname or ""
        if self._address.scheme == "https":
            return http.client.HTTPSConnection(host, self._address.port, timeout=CONNECT_S)
        return http.client.HTTPConnection(host, self._address.port, timeout=CONNECT_S)

    def _exchange(
        self, connection: http.client.HTTPConnection, request: Request
    ) -> http.client.HTTPResponse:
        """Send all and read the answer's head."""
        connection.sock.settimeout(request.idle_s)
        prefix = "" if self._address.scheme == "unix" else self._address.path
        query = f"?{urllib.parse.urlencode(request.query)}" if request.query else ""
        headers = dict(request.headers)
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if request.length is not None:
            headers["Content-Length"] = str(request.length)
        try:
            _send(connection, request, f"{prefix}{request.path}{query}", headers)
            return connection.getresponse()
        except TimeoutError as error:
            raise Broken(
                f"the manager at {self._url}",
                f"gave no answer within {request.idle_s:.0f} s",
                "Try again; its log may say why.",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Broken(
                f"the manager at {self._url}",
                f"the connection broke ({_reason(error)})",
                "Try again.",
            ) from error


def _send(
    connection: http.client.HTTPConnection, request: Request, target: str, headers: dict[str, str]
) -> None:
    try:
        connection.request(request.method, target, body=request.body, headers=headers)
    except (BrokenPipeError, ConnectionResetError):
        if request.length is None:
            raise  # else it refuses a body before its end, and its answer says why


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "the answer was cut off"
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionError):
        return "what answers does not speak HTTP"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text or type(error).__name__).rstrip(".").lower()
