"""Who asks: bearer tokens, scopes, and how much one may ask."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final
from weakref import WeakValueDictionary

from aiohttp import web

from phalanx_manager.clock import Clock
from phalanx_manager.core.fair import may_have_more
from phalanx_manager.core.model import Caller, Scope
from phalanx_manager.http.doors import Rates
from phalanx_manager.http.problems import Refused, refused
from phalanx_manager.store.port import Store
from phalanx_wire.api import Problem

PREFIX: Final = "phx_"
SECRET_BYTES: Final = 32
_SECRET: Final = re.compile(r"phx_[A-Za-z0-9_-]{43}")
_BEARER: Final = re.compile(rf"[Bb]earer +(?P<token>{_SECRET.pattern})")
_CALLERS_KEPT: Final = 4096
_COPIES: Final = 16
_COPY_WITHIN_S: Final = 60.0
_LEVEL: Final[dict[Scope, int]] = {"read-only": 0, "user": 1, "admin": 2}


def spell_secret(entropy: bytes) -> str:
    """Write 32 random bytes as a bearer token."""
    return PREFIX + base64.urlsafe_b64encode(entropy).rstrip(b"=").decode()


def is_secret(text: str) -> bool:
    """Tell whether a text is a bearer token, as `spell_secret` makes them."""
    return _SECRET.fullmatch(text) is not None


def secret_hash(token: str) -> str:
    """Hash a token as the database keeps it; the secret has all its 256 bits, so no salt."""
    return hashlib.sha256(token.encode()).hexdigest()


async def identify(request: web.Request, store: Store, clock: Clock) -> tuple[Caller, str]:
    """Tell whose token it is, and its id. All that is wrong with a token is one and the same
    answer.
    """
    match = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if match is None:
        raise _unknown()
    digest = secret_hash(match["token"])
    row = await store.token_by_hash(digest)
    if (
        row is None
        or not hmac.compare_digest(row.secret_hash, digest)
        or row.revoked
        or (row.expires_at is not None and row.expires_at <= clock.now())
    ):
        raise _unknown()
    return Caller(row.name, row.scope), row.id


def authorize(caller: Caller, scope: Scope) -> None:
    """Refuse a caller whose token does not reach so far."""
    if _LEVEL[caller.scope] < _LEVEL[scope]:
        raise refused(
            "forbidden",
            403,
            f"this needs a token with the scope {scope}; yours has {caller.scope}",
            hint="`phalanx token create --scope` makes one, with an admin's token",
        )


def _unknown() -> Refused:
    problem = Problem(
        "unauthorized",
        "the token is missing, wrong, expired or revoked",
        401,
        hint="send `Authorization: Bearer phx_...`; the client takes it from PHALANX_TOKEN",
    )
    return Refused(problem, {"WWW-Authenticate": "Bearer"})


class Turnstile:
    """Counts what each caller asks: a bucket of requests that fills, and open streams."""

    def __init__(self, rates: Rates, clock: Clock) -> None:
        self._rates = rates
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._streams: Counter[str] = Counter()
        self._copies: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._served: dict[str, set[asyncio.Task[object]]] = {}

    @contextmanager
    def serve(self, token: str) -> Iterator[None]:
        """Serve a request for as long as its token is worth something."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - requests are served by tasks
        served = self._served.setdefault(token, set())
        served.add(task)
        try:
            yield
        finally:
            served.discard(task)
            if not served:
                self._served.pop(token, None)

    def end(self, token: str) -> None:
        """End what is served to a token, streams above all, but for the request that asks this."""
        for task in self._served.get(token, set()) - {asyncio.current_task()}:
            task.cancel()

    def enter(self, caller: Caller) -> None:
        """Take one request out of the caller's bucket, or refuse it."""
        now = self._clock.monotonic_s()
        left, at = self._buckets.get(caller.user, (float(self._rates.burst), now))
        left = min(self._rates.burst, left + (now - at) * self._rates.per_s)
        if left < 1:
            raise _slow_down(f"more than {self._rates.per_s:g} requests per second")
        self._buckets[caller.user] = (left - 1, now)
        self._buckets.move_to_end(caller.user)
        if len(self._buckets) > _CALLERS_KEPT:
            self._buckets.popitem(last=False)

    @contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """Hold one of the caller's streams open, or refuse it."""
        count, rates = self._streams[caller.user], self._rates
        if count >= rates.streams:
            raise _slow_down(f"more than {rates.streams} streams open at once")
        if not may_have_more(count, self._streams.total(), rates.everybodys_streams):
            raise _slow_down(f"more than half of the streams that others leave, {count}")
        self._streams[caller.user] = count + 1
        try:
            yield
        finally:
            self._streams[caller.user] -= 1
            if not self._streams[caller.user]:
                del self._streams[caller.user]

    @asynccontextmanager
    async def copy(self, caller: Caller) -> AsyncIterator[None]:
        """Hold a stream that copies files, once few enough of the caller's do: what one does not
        take lies on a host's disk meanwhile.
        """
        turn = self._copies.setdefault(caller.user, asyncio.Semaphore(_COPIES))
        with self.stream(caller):
            try:
                async with asyncio.timeout(_COPY_WITHIN_S):
                    await turn.acquire()
            except TimeoutError as error:
                raise _slow_down(f"more than {_COPIES} copies at once") from error
            try:
                yield
            finally:
                turn.release()


def _slow_down(what: str) -> Refused:
    problem = Problem("too_many_requests", f"that is {what}", 429, hint="wait a second")
    return Refused(problem, {"Retry-After": "1"})
