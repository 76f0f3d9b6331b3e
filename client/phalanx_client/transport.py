"""The seam between what is asked of a manager and how the bytes get there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        path: quoted already, e.g. `/v1/sessions/demo`.
        body: bytes, or an open file of `length` bytes.
        idle_s: give up when not a single byte came for so long.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | BinaryIO | None = None
    length: int | None = None
    idle_s: float = 30.0


class Reply(Protocol):
    """What came back. Header names are lower case."""

    @property
    def status(self) -> int:
        """HTTP's status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields; names in lower case."""
        ...

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; raises `Broken` when the connection breaks."""
        ...


class Transport(Protocol):
    """Sends requests; one per manager."""

    def open(self, request: Request) -> AbstractAsyncContextManager[Reply]:
        """Send a request and give its reply, whose body is read inside the context.

        Raises `Unavailable`; of its kind `Broken` when the request may have been heard.
        """
        ...

    async def pause(self, seconds: float) -> None:
        """Wait."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...
