"""A manager that says "too many requests" is asked again when it said so, a few times."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from phalanx_client.transport import Reply, Request, Transport

TOO_MANY: Final = 429
TRIES: Final = 4
LONGEST_S: Final = 10.0


class PacedTransport:
    """See `Transport`. What was refused so was not done, so that any request may be repeated."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Reply]:
        """See `Transport.open`; the last refusal is the reply."""
        body = request.body
        start = None if body is None or isinstance(body, bytes) else body.tell()
        for left in reversed(range(TRIES)):
            async with self._inner.open(request) as reply:
                wait_s = _wait_s(reply) if left else None
                if wait_s is None:
                    yield reply
                    return
            await self._inner.pause(wait_s)
            if start is not None and body is not None and not isinstance(body, bytes):
                body.seek(start)

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await self._inner.pause(seconds)

    async def close(self) -> None:
        """Give connections back."""
        await self._inner.close()


def _wait_s(reply: Reply) -> float | None:
    """For how long the manager wants to be left alone, in seconds; None for any other reply."""
    told = reply.headers.get("retry-after", "")
    return min(float(told), LONGEST_S) if reply.status == TOO_MANY and told.isdecimal() else None
