"""The library: everything that can be asked of a manager.

    async with connect() as client:
        async with await client.run(SessionSpec(image="alpine", command=("id",))) as session:
            await session.follow()

`phalanx_client.connect_blocking` gives the same without `await`.
"""

from __future__ import annotations

import math
import os
import secrets
import shlex
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import BinaryIO, Literal
from urllib.parse import quote

import msgspec

from phalanx_client.answers import decode
from phalanx_client.clusters import Clusters
from phalanx_client.exchange import JSON
from phalanx_client.failure import USAGE, Away, Failure, Unavailable
from phalanx_client.handle import Session
from phalanx_client.inside import Completed, Inside
from phalanx_client.patience import FIRST_PAUSE_S
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
from phalanx_wire.stream import Recipients

Until = Literal["running", "ended", "removed"]
MAYBE_SUBMITTED = "It may have been submitted: look with `phalanx ps` before you submit it again."
PAST_START = ("running", "stopping")
EARLY_S = 0.5
"""An answer so much before its time came for a reason."""
POLL_S = 25.0
"""One long poll; shorter than what proxies cut."""
TRANSFER_S = 600.0


class Client(Clusters):
    """Requests to one manager; made by `connect`.

    Attributes:
        news: told what happens to a session beside the output that is followed, e.g. that it is
            stuck.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        patience_s: float = 0.0,
        on_wait: Callable[[Unavailable | Away], None] | None = None,
        inside: Inside | None = None,
    ) -> None:
        super().__init__(transport, patience_s=patience_s, on_wait=on_wait)
        self._inside = inside
        self.news: Callable[[EventView], None] = lambda _event: None

    # ------------------------------------------------------------ sessions

    async def run(
        self, spec: SessionSpec, *, upload: str | None = None, seal: bool | None = None
    ) -> Session:
        """Start a session.

        Args:
            upload: a folder of this machine to copy into every container's /workspace.
            seal: so that the hosts that the cluster has now can read it, and nobody else; None is
                yes unless the environment says `PHALANX_SEAL=no`.

        Raises:
            Refused: with the manager's reason.
            Failure: there is no such folder, or no host yet to seal it for.
        """
        key = secrets.token_hex(16)
        if upload is None:
            return Session(self, await self.submit(spec, key))
        from phalanx_client import sending  # noqa: PLC0415 - slow, and seldom asked for

        sealing = sending.wanted(os.environ) if seal is None else seal
        with sending.Folder(self, upload, seal=sealing) as folder:
            return Session(self, await folder.submit(spec, key))

    async def attach(self, ref: str) -> Session:
        """A session that is there already, by id, name or unique prefix."""
        return Session(self, await self.session(ref))

    async def exec(
        self, ref: str, command: Sequence[str], *, rank: int = 0, stdin: bytes = b""
    ) -> Completed:
        """Run a command in a container, to its end.

        Raises:
            Refused: the session does not run, or the command could not be started.
            Failure: the command is a text.
        """
        if isinstance(command, str):  # a sequence of words for every checker of types
            raise Failure(
                f"a command is a list of words: {shlex.split(command)}; for a shell's line: "
                f"{['sh', '-c', command]}",
                USAGE,
            )
        if self._inside is None:
            raise Failure(
                "this client runs no commands; phalanx_client.connect makes one that does"
            )
        return await self._inside.run(ref, rank, tuple(command), stdin)

    async def submit(self, spec: SessionSpec, key: str) -> SessionView:
        """Ask for a session; the same key and spec give the same session, however often."""
        headers = (*JSON, ("Idempotency-Key", key))
        request = Request("POST", "/v1/sessions", headers=headers, body=msgspec.json.encode(spec))
        return await self._ask_by_key(request, SessionView, MAYBE_SUBMITTED)

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

    async def signal(
        self,
        ref: str,
        signal: str,
        ranks: tuple[int, ...] | None = None,
        to: Recipients | None = None,
    ) -> None:
        """Send a signal to the command of all ranks, or of some; or to the tasks of steps."""
        await self._command(_of(ref, "/signal"), SignalRequest(signal, ranks, to), repeat=False)

    async def env(self, ref: str, rank: int | None = None) -> EnvView:
        """The environment of every rank, or of one."""
        return await self._get(_of(ref, "/env" if rank is None else f"/env?rank={rank}"), EnvView)

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
        """Store a tar archive, sealed or not; its digest is what `SessionSpec.upload` names."""
        headers = (("Content-Type", "application/x-tar"),)
        request = Request("PUT", "/v1/uploads", (), headers, archive, length, TRANSFER_S)
        return await self._ask_by_key(request, UploadCreated, "Try again.")  # the digest is its key

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


def reached(view: SessionView, until: Until) -> bool:
    """Whether a session is where one waited for it, or past that."""
    return view.state in ENDED_STATES or (until == "running" and view.state in PAST_START)


def _of(ref: str, rest: str = "") -> str:
    return f"/v1/sessions/{quote(ref, safe='')}{rest}"


def _node(name: str, rest: str) -> str:
    return f"/v1/nodes/{quote(name, safe='')}{rest}"
