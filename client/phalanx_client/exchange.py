"""How a client asks: one request and its answer, repeated where it may be; a stream of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Self, TypeVar

import msgspec

from phalanx_client.answers import UNEXPLAINED, body_of, check_events, decode, events_of, problem_of
from phalanx_client.failure import Away, Broken, Refused, Unavailable
from phalanx_client.patience import Absence, Patience
from phalanx_client.sse import ServerEvent
from phalanx_client.transport import Reply, Request, Transport

T = TypeVar("T")
JSON = (("Content-Type", "application/json"),)
BEFORE = "the manager, or something before it"
GATEWAY = (502, 503, 504)
"""What proxies answer for a manager that is away."""
AWAY = "unavailable"
HEARD_S = 20.0
"""How long what must not be done twice is repeated by its key, when it may have been heard: longer
than a manager needs to start again. Without an answer nobody knows whether it was done.
"""
SILENCE_S = 60.0
"""A stream says something at least every 15 s; after this long without a byte it is dead."""


class _End(msgspec.Struct, frozen=True):
    """The last event of a stream.

    Attributes:
        missing: of output, what could not be told, sentences.
    """

    missing: tuple[str, ...] = ()


class Exchange:
    """Requests over one transport.

    Args:
        patience_s: how long a manager that answered before may be away (it restarts) before a
            request that can be repeated fails.
        on_wait: told, once per absence, that the manager is away.

    Attributes:
        missing: what the stream that has ended last could not tell of output, sentences.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        patience_s: float = 0.0,
        on_wait: Callable[[Unavailable | Away], None] | None = None,
    ) -> None:
        self._transport = transport
        self._patience = Patience(transport, patience_s, on_wait)
        self.missing: tuple[str, ...] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give connections back."""
        await self._transport.close()

    async def accepted(self, reply: Reply) -> Reply:
        """The reply itself, if it is no refusal.

        Raises:
            Refused: with the manager's problem; `Away` when it may be over soon.
            Broken: with none, by a proxy whose manager is away, or went away meanwhile.
            Unavailable: it is somewhere else.
        """
        if 300 <= reply.status < 400:
            there = reply.headers.get("location", "")[:200]
            hint = "Name the address itself: --url, PHALANX_URL."
            raise Unavailable(BEFORE, f"sends us elsewhere, to {there or 'nowhere'}", hint)
        if reply.status >= 400:
            problem = problem_of(reply, await body_of(reply))
            if problem.code == UNEXPLAINED and reply.status in GATEWAY:
                raise Broken(BEFORE, f"answered {reply.status}", "Is the manager up?")
            raise (Away if problem.code == AWAY else Refused)(problem)
        return reply

    async def _get(self, path: str, shape: type[T], query: Iterable[tuple[str, str]] = ()) -> T:
        return await self._ask(Request("GET", path, tuple(query)), shape, repeat=True)

    async def _post(self, path: str, body: object, shape: type[T]) -> T:
        request = Request("POST", path, headers=JSON, body=msgspec.json.encode(body))
        return await self._ask(request, shape, repeat=False)

    async def _command(self, path: str, body: object, *, repeat: bool) -> None:
        request = Request("POST", path, headers=JSON, body=msgspec.json.encode(body))
        await self._read(request, repeat=repeat)

    async def _ask(self, request: Request, shape: type[T], *, repeat: bool) -> T:
        return decode(await self._read(request, repeat=repeat), shape)

    async def _ask_by_key(self, request: Request, shape: type[T], hint: str) -> T:
        """The answer to a request that is done once however often it comes.

        Args:
            hint: what to do when it may have been done and no answer says so.
        """
        absence = Absence(self._patience, HEARD_S)
        try:
            return decode(await self._read(request, repeat=True, absence=absence), shape)
        except (Unavailable, Away) as trouble:
            if absence.heard:
                raise Broken(trouble.what, trouble.doing, hint) from trouble
            raise

    async def _read(
        self, request: Request, *, repeat: bool, absence: Absence | None = None
    ) -> bytes:
        """The body of a good answer; what may be repeated is, within the patience."""
        absence = absence or Absence(self._patience)
        body = request.body
        start = None if body is None or isinstance(body, bytes) else body.tell()
        while True:
            if start is not None and body is not None and not isinstance(body, bytes):
                body.seek(start)
            try:
                async with self._transport.open(request) as reply:
                    said = await body_of(await self.accepted(reply))
            except (Broken, Away) as trouble:
                if not repeat:
                    raise
                await absence.endure(trouble)
            except Unavailable as trouble:
                await absence.endure(trouble)
            else:
                self._patience.met = True
                return said

    async def _stream(
        self, path: str, query: list[tuple[str, str]], after: str, *, follow: bool
    ) -> AsyncGenerator[ServerEvent, None]:
        """Events until the one called `end`, over as many connections as it takes.

        A resumed stream goes on after the last event that had an id; events without one that came
        after it come again, and are told once.
        """
        absence = Absence(self._patience)
        told: Counter[str] = Counter()
        again: Counter[str] = Counter()
        while True:
            headers = [("Accept", "text/event-stream")]
            headers += [("Last-Event-ID", after)] if after else []
            request = Request("GET", path, tuple(query), tuple(headers), idle_s=SILENCE_S)
            again, told = again + told, Counter()
            try:
                async with self._transport.open(request) as reply:
                    check_events(await self.accepted(reply))
                    self._patience.met = True
                    async with aclosing(events_of(reply)) as events:
                        async for event in events:
                            if event.name == "end":
                                self.missing = decode(event.data, _End).missing
                                return
                            absence = Absence(self._patience)
                            told[event.data] += 1
                            if event.id != after:
                                after = event.id
                                told.clear()
                            if again[event.data] > 0:
                                again[event.data] -= 1
                            else:
                                yield event
                if not follow:
                    return
                await absence.endure(Broken("the stream", "ended early", "Try again."))
            except (Unavailable, Away) as trouble:
                await absence.endure(trouble)
