"""The library: everything that can be asked of a manager.

    async with connect() as client:
        session = await client.submit(SessionSpec(image="alpine", command=("id",)), key)
        async for line in client.logs(session.id, follow=True): ...

`phalanx_client.blocking.BlockingClient` is the same without `await`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import BinaryIO, Literal, Self, TypeVar
from urllib.parse import quote

import msgspec

from phalanx_client.answers import body_of, decode, events_of, problem_of
from phalanx_client.failure import Broken, Refused, Unavailable
from phalanx_client.patience import FIRST_PAUSE_S, Absence, Patience
from phalanx_client.sse import ServerEvent
from phalanx_client.transport import Reply, Request, Transport
from phalanx_wire.api import (
    ENDED_STATES,
    CreateAgentToken,
    CreateToken,
    DrainRequest,
    DryRun,
    EnvView,
    EventView,
    ExtendRequest,
    LogEvent,
    NodeList,
    NodeView,
    SessionList,
    SessionView,
    SignalRequest,
    SshView,
    StopRequest,
    TokenCreated,
    TokenList,
    UploadCreated,
    WhyView,
)
from phalanx_wire.spec import SessionSpec

T = TypeVar("T")
JSON = (("Content-Type", "application/json"),)
Until = Literal["running", "ended", "removed"]
PAST_START = ("running", "stopping")
EARLY_S = 0.5
"""An answer so much before its time came for a reason."""
POLL_S = 25.0
"""One long poll; shorter than what proxies cut."""
SILENCE_S = 60.0
"""A stream says something at least every 15 s; after this long without a byte it is dead."""
TRANSFER_S = 600.0


class Client:
    """Requests to one manager.

    Args:
        patience_s: how long a manager that answered before may be away (it restarts) before a
            request that can be repeated fails.
        on_wait: told, once per absence, that the manager is away.

    Attributes:
        news: told what happens to a session beside the output that is followed, e.g. that it is
            stuck.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        patience_s: float = 0.0,
        on_wait: Callable[[Unavailable], None] | None = None,
    ) -> None:
        self.news: Callable[[EventView], None] = lambda _event: None
        self._transport = transport
        self._patience = Patience(transport, patience_s, on_wait)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give connections back."""
        await self._transport.close()

    # ------------------------------------------------------------ sessions

    async def submit(self, spec: SessionSpec, key: str) -> SessionView:
        """Ask for a session; the same key and spec give the same session, however often."""
        headers = (*JSON, ("Idempotency-Key", key))
        request = Request("POST", "/v1/sessions", headers=headers, body=msgspec.json.encode(spec))
        return await self._ask(request, SessionView, repeat=True)

    async def dry_run(self, spec: SessionSpec) -> DryRun:
        """Say where a session would go now."""
        query = (("dry_run", "1"),)
        body = msgspec.json.encode(spec)
        request = Request("POST", "/v1/sessions", query, JSON, body)
        return await self._ask(request, DryRun, repeat=True)

    async def sessions(
        self, states: Iterable[str] = (), *, ended: bool = False, limit: int | None = None
    ) -> SessionList:
        """Sessions, newest first: the live ones, with `ended` also those that are over."""
        query = [("state", state) for state in states]
        query += [("all", "1")] if ended else []
        query += [("limit", str(limit))] if limit is not None else []
        return await self._get("/v1/sessions", SessionList, query)

    async def session(self, ref: str) -> SessionView:
        """One session by id, name or unique prefix."""
        return await self._get(_of(ref), SessionView)

    async def wait(self, ref: str, until: Until, timeout_s: float = math.inf) -> SessionView | None:
        """Wait until a session runs, has ended, or is gone from all hosts; None: not in time.

        What has ended is past `running` too. A view does not show whether anything is left on a
        host: there an answer before its time is the yes.
        """
        left = timeout_s
        while left > 0:
            span = min(left, POLL_S)
            began = time.monotonic()
            view = await self.look(ref, until, span)
            took = time.monotonic() - began
            early = took < span - EARLY_S
            if early if until == "removed" else reached(view, until):
                return view
            if early:  # no answer may make us ask without pause
                await self._transport.pause(FIRST_PAUSE_S)
            left -= max(took, FIRST_PAUSE_S)
        return None

    async def look(self, ref: str, until: Until, timeout_s: float) -> SessionView:
        """A session as it is when it runs or has ended, or else after the time: one long poll."""
        query = (("until", until), ("timeout_s", f"{timeout_s:g}"))
        request = Request("GET", _of(ref, "/wait"), query, idle_s=timeout_s + 15)
        return await self._ask(request, SessionView, repeat=True)

    async def stop(self, ref: str, grace_s: float | None = None) -> None:
        """Stop a session; a repeated stop changes nothing."""
        await self._command(_of(ref, "/stop"), StopRequest(grace_s), repeat=True)

    async def requeue(self, ref: str) -> SessionView:
        """Stop what runs of a session and put it back into the queue, as its next attempt."""
        request = Request("POST", _of(ref, "/requeue"))
        return await self._ask(request, SessionView, repeat=False)

    async def hold(self, ref: str, *, held: bool) -> SessionView:
        """Keep a waiting session in the queue, or let it go."""
        request = Request("POST", _of(ref, "/hold" if held else "/release"))
        return await self._ask(request, SessionView, repeat=True)

    async def extend(self, ref: str, seconds: float) -> SessionView:
        """Add to a session's time limit."""
        return await self._post(_of(ref, "/extend"), ExtendRequest(seconds), SessionView)

    async def signal(self, ref: str, signal: str, ranks: tuple[int, ...] | None = None) -> None:
        """Send a signal to the command of all ranks, or of some."""
        await self._command(_of(ref, "/signal"), SignalRequest(signal, ranks), repeat=False)

    async def env(self, ref: str) -> EnvView:
        """The environment of every rank."""
        return await self._get(_of(ref, "/env"), EnvView)

    async def why(self, ref: str) -> WhyView:
        """Why a session waits, is stuck or has failed, the likeliest reason first."""
        return await self._get(_of(ref, "/why"), WhyView)

    async def ssh(self, ref: str) -> SshView:
        """The host keys of a session's ssh servers."""
        return await self._get(_of(ref, "/ssh"), SshView)

    async def events(
        self, ref: str | None = None, *, follow: bool = False, after: str = ""
    ) -> AsyncGenerator[EventView, None]:
        """What happened to a session, or to all; follows over restarts of the manager."""
        path = _of(ref, "/events") if ref is not None else "/v1/events"
        query = [("follow", "1" if follow else "0")]
        async with aclosing(self._stream(path, query, after, follow=follow)) as stream:
            async for event in stream:
                yield decode(event.data, EventView)

    async def logs(
        self,
        ref: str,
        *,
        follow: bool = False,
        ranks: str = "",
        since: str = "",
        tail: int | None = None,
        after: str = "",
    ) -> AsyncGenerator[tuple[str, LogEvent], None]:
        """Lines of output, each with the point from which `after` resumes.

        `ranks` is like `0,2-3`, empty is all; `since` is a time in RFC 3339; of the last lines at
        most `tail` come.
        """
        query = [("follow", "1" if follow else "0")]
        query += [("rank", ranks)] if ranks else []
        query += [("since", since)] if since else []
        query += [("tail", str(tail))] if tail is not None else []
        path = _of(ref, "/logs")
        async with aclosing(self._stream(path, query, after, follow=follow)) as stream:
            async for event in stream:
                if event.name == "event":
                    self.news(decode(event.data, EventView))
                else:
                    yield event.id, decode(event.data, LogEvent)

    async def logs_of_attempt(
        self, ref: str, attempt: int, *, ranks: str = ""
    ) -> AsyncGenerator[tuple[str, LogEvent], None]:
        """All lines of an attempt, also of one that is over; see `logs`."""
        query = [("attempt", str(attempt))] + ([("rank", ranks)] if ranks else [])
        async with aclosing(self._stream(_of(ref, "/logs"), query, "", follow=False)) as stream:
            async for event in stream:
                yield event.id, decode(event.data, LogEvent)

    # ------------------------------------------------------------ files

    async def upload(self, archive: BinaryIO, length: int) -> UploadCreated:
        """Store a tar archive; its digest is what `SessionSpec.upload` names."""
        headers = (("Content-Type", "application/x-tar"),)
        request = Request("PUT", "/v1/uploads", (), headers, archive, length, TRANSFER_S)
        return await self._ask(request, UploadCreated, repeat=False)

    def read_archive(self, ref: str, rank: int, path: str) -> AbstractAsyncContextManager[Reply]:
        """A path of a container as a tar archive; check the reply with `accepted`."""
        query = (("rank", str(rank)), ("path", path))
        return self._transport.open(Request("GET", _of(ref, "/archive"), query, idle_s=TRANSFER_S))

    async def write_archive(
        self, ref: str, rank: int, path: str, archive: BinaryIO, length: int
    ) -> None:
        """Unpack a tar archive into an existing folder of a container."""
        query = (("rank", str(rank)), ("path", path))
        headers = (("Content-Type", "application/x-tar"),)
        request = Request("PUT", _of(ref, "/archive"), query, headers, archive, length, TRANSFER_S)
        await self._read(request, repeat=False)

    # ------------------------------------------------------------ nodes and tokens

    async def nodes(self) -> NodeList:
        """The agents and their hosts."""
        return await self._get("/v1/nodes", NodeList)

    async def drain(self, name: str, wish: DrainRequest) -> NodeView:
        """Give a host no new work."""
        return await self._post(_node(name, "/drain"), wish, NodeView)

    async def undrain(self, name: str) -> NodeView:
        """Give a host work again."""
        request = Request("POST", _node(name, "/undrain"))
        return await self._ask(request, NodeView, repeat=False)

    async def forget(self, name: str) -> None:
        """Give up a host that is lost, and what it holds."""
        await self._read(Request("POST", _node(name, "/forget")), repeat=False)

    async def create_token(self, wish: CreateToken) -> TokenCreated:
        """Make a bearer token."""
        return await self._post("/v1/tokens", wish, TokenCreated)

    async def create_agent_token(self, wish: CreateAgentToken) -> TokenCreated:
        """Make a token with which one agent may join."""
        return await self._post("/v1/agent-tokens", wish, TokenCreated)

    async def tokens(self) -> TokenList:
        """All tokens, without their secrets."""
        return await self._get("/v1/tokens", TokenList)

    async def revoke_token(self, token: str) -> None:
        """Make a token worthless."""
        await self._read(Request("DELETE", f"/v1/tokens/{quote(token, safe='')}"), repeat=True)

    # ------------------------------------------------------------ how

    async def accepted(self, reply: Reply) -> Reply:
        """The reply itself, if it is no refusal.

        Raises:
            Refused: with the manager's problem.
        """
        if reply.status >= 400:
            raise Refused(problem_of(reply, await body_of(reply)))
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

    async def _read(self, request: Request, *, repeat: bool) -> bytes:
        """The body of a good answer; what may be repeated is, within the patience."""
        absence = Absence(self._patience)
        while True:
            try:
                async with self._transport.open(request) as reply:
                    body = await body_of(await self.accepted(reply))
            except Broken as trouble:
                if not repeat:
                    raise
                await absence.endure(trouble)
            except Unavailable as trouble:
                await absence.endure(trouble)
            else:
                self._patience.met = True
                return body

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
                    await self.accepted(reply)
                    self._patience.met = True
                    async with aclosing(events_of(reply)) as events:
                        async for event in events:
                            if event.name == "end":
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
            except Unavailable as trouble:
                await absence.endure(trouble)


def reached(view: SessionView, until: Until) -> bool:
    """Whether a session is where one waited for it, or past that."""
    return view.state in ENDED_STATES or (until == "running" and view.state in PAST_START)


def _of(ref: str, rest: str = "") -> str:
    return f"/v1/sessions/{quote(ref, safe='')}{rest}"


def _node(name: str, rest: str) -> str:
    return f"/v1/nodes/{quote(name, safe='')}{rest}"
