"""Several managers of which one leads: requests go to that one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import msgspec

from phalanx_client.config import Manager
from phalanx_client.failure import Broken, Unavailable
from phalanx_client.transport import Reply, Request, Transport
from phalanx_wire.api import Problem

STANDS_BY = 503
_HINT = "Try again: one leads within seconds."


@dataclass(frozen=True, slots=True)
class _Read:
    """A reply whose body has been read already."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body in one piece."""
        yield self.body


class EitherTransport:
    """See `Transport`: the first of several managers that leads; it is asked first from then on."""

    def __init__(self, managers: Sequence[Transport]) -> None:
        self._managers = managers
        self._at = 0

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Reply]:
        """See `Transport.open`."""
        trouble: Unavailable | None = None
        body = request.body
        start = None if body is None or isinstance(body, bytes) else body.tell()
        for _ in self._managers:
            async with AsyncExitStack() as stack:
                reply: Reply | None = None
                try:
                    manager = self._managers[self._at]
                    reply = await _leaders(await stack.enter_async_context(manager.open(request)))
                except Broken:
                    self._next()  # it may have been heard: whoever repeats it asks another
                    raise
                except _NotLeading as error:
                    trouble = trouble or error
                except Unavailable as error:
                    trouble = error
                if reply is not None:
                    yield reply
                    return
            self._next()
            if start is not None and body is not None and not isinstance(body, bytes):
                body.seek(start)
        raise trouble or Unavailable("the manager", "is not known", "See --url, PHALANX_URL.")

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await self._managers[0].pause(seconds)

    async def close(self) -> None:
        """Give connections back."""
        for manager in self._managers:
            await manager.close()

    def _next(self) -> None:
        self._at = (self._at + 1) % len(self._managers)


class _NotLeading(Unavailable):
    """A manager is there, and does not lead."""


async def _leaders(reply: Reply) -> Reply:
    """The reply of a manager that leads.

    Raises:
        _NotLeading: it does not.
    """
    if reply.status != STANDS_BY:
        return reply
    body = b"".join([piece async for piece in reply.pieces()])
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        problem = Problem("unexplained", "", STANDS_BY)
    if problem.code == "not_leader":
        raise _NotLeading("the manager", problem.title, f"{_HINT} ({problem.hint})")
    return _Read(reply.status, reply.headers, body)


async def leading(manager: Manager) -> Manager:
    """Pick the one that leads, for what needs a connection of its own.

    Raises:
        Unavailable: none does.
    """
    from phalanx_client.aio import AioTransport  # noqa: PLC0415 - slow, and only needed here

    each = manager.each()
    if len(each) == 1:
        return manager
    for one in each:
        async with AioTransport(one) as transport:
            try:
                async with transport.open(Request("GET", "/readyz", idle_s=3.0)) as reply:
                    if reply.status < STANDS_BY:
                        return one
            except Unavailable:
                continue  # it is not the one
    raise Unavailable("the managers", "none of them leads now", _HINT)
