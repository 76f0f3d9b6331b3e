"""HTTP by aiohttp: for programs with an event loop, and for terminals (WebSocket)."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Self

import aiohttp

from phalanx_client.config import Manager
from phalanx_client.failure import Broken, Unavailable
from phalanx_client.transport import CONNECT_S, Request

PIECE = 64 << 10


class AioReply:
    """A reply whose body is still on the wire."""

    def __init__(self, url: str, response: aiohttp.ClientResponse) -> None:
        self._url = url
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in response.headers.items()}

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes."""
        try:
            async for piece in self._response.content.iter_chunked(PIECE):
                yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(self._url, _reason(error), "Is the manager still up?") from error


class AioTransport:
    """A pool of connections; made inside a running event loop."""

    def __init__(
        self, manager: Manager, on_wait: Callable[[Unavailable], None] = lambda _trouble: None
    ) -> None:
        """Args: on_wait: told, once, that a WebSocket is waited for."""
        self.on_wait = on_wait
        address = urllib.parse.urlsplit(manager.url)
        unix = address.scheme == "unix"
        # How many at once is for the manager to say; aiohttp would let the 101st wait for ever.
        connector = (
            aiohttp.UnixConnector(address.path, limit=0) if unix else aiohttp.TCPConnector(limit=0)
        )
        self.url = manager.url
        self.root = "http://localhost" if unix else manager.url
        self.http = aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {manager.token}"} if manager.token else {},
            auto_decompress=True,
        )

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[AioReply]:
        """See `Transport.open`."""
        headers = dict(request.headers)
        if request.length is not None:
            headers["Content-Length"] = str(request.length)
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_S, sock_read=request.idle_s
        )
        try:
            response = await self.http.request(
                request.method,
                self.root + request.path,
                params=list(request.query),
                data=request.body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise self.trouble(error) from error
        async with response:
            yield AioReply(self.url, response)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def pause(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Close the pool."""
        await self.http.close()

    def trouble(self, error: Exception) -> Unavailable:
        """A failed exchange as a sentence."""
        where = f"the manager at {self.url}"
        if isinstance(error, aiohttp.ClientConnectorError):
            hint = "Is it running? See --url, PHALANX_URL."
            return Unavailable(where, f"can't be reached ({_reason(error)})", hint)
        return Broken(where, f"the connection broke ({_reason(error)})", "Try again.")


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.strerror:
        return error.os_error.strerror.lower()
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut off"
    if isinstance(error, aiohttp.ClientResponseError):
        return "what answers does not speak HTTP"
    return (str(error) or type(error).__name__).rstrip(".")
