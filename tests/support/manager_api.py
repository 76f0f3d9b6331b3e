"""The API over the real store in memory, with agents that answer in this process."""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path

import msgspec
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from phalanx_manager.core import seat
from phalanx_manager.core.model import Caller, Limits, Scope, SessionRow
from phalanx_manager.core.observe import KernelChange, moved
from phalanx_manager.http import auth
from phalanx_manager.http.app import build
from phalanx_manager.http.doors import Doors, Joining, Rates
from phalanx_manager.http.entrance import Entrance
from phalanx_manager.http.logs_live import Outputs
from phalanx_manager.http.uploads import Uploads
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.shares import Shares
from phalanx_manager.rpc.steps import Steps
from phalanx_manager.store.database import MEMORY
from phalanx_manager.store.port import TokenRow
from phalanx_manager.store.sqlite import SqliteStore
from phalanx_manager.wake import Chimes
from phalanx_wire import loglines
from phalanx_wire.api import LogLine, Problem, SessionView
from phalanx_wire.control import Engine, Message, Observed
from phalanx_wire.ids import AgentId, ClusterName, SessionId
from phalanx_wire.lifecycle import KernelState, Owner, path
from phalanx_wire.mux import Mux, Stream, StreamClosed
from phalanx_wire.slots import Slots
from phalanx_wire.stream import STDOUT, WINDOW_BYTES, Call, Closed, LogsCall

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
POOL = IPv4Network("10.213.0.0/16")
SERVER_KEY = "0123456789abcdefghijABCDEFGHIJ.-:+=^!/*?"
PATIENCE_S = 10.0
_HEADER_BYTES = 64 << 10
SPEC = {"name": "demo", "image": "alpine:3.20", "command": ["sleep", "1"], "size": 2}
SMALL = {"cpu": 0.1, "mem": "64M", "shm": "16M", "pids": 64}

Answer = Callable[[Stream], Awaitable[None]]


@dataclass
class TestClock:
    """A clock that stands still until it is moved."""

    __test__ = False
    passed_s: float = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed_s)

    def monotonic_s(self) -> float:
        return 1000.0 + self.passed_s


@dataclass
class LocalLink:
    """Agents in this process: each stream is served by `answer`."""

    tasks: asyncio.TaskGroup
    answer: Answer
    away: set[AgentId] = field(default_factory=set)
    expelled: list[AgentId] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    muxes: list[tuple[Mux, Mux]] = field(default_factory=list)
    serving: list[asyncio.Task[None]] = field(default_factory=list)

    def connected(self) -> frozenset[AgentId]:
        return frozenset()

    def expel(self, agent: AgentId) -> None:
        self.expelled.append(agent)

    async def open(self, agent: AgentId, call: Call, window: int = WINDOW_BYTES) -> Stream:
        if agent in self.away:
            raise Unavailable(f"agent {agent}", "it is not connected")
        self.calls.append(call)

        async def down(message: Message) -> None:
            theirs.receive(message)

        async def up(message: Message) -> None:
            ours.receive(message)

        ours = Mux(down, 0, lambda _open, _stream: None)
        theirs = Mux(up, 1, lambda _open, stream: self._serve(stream))
        self.muxes.append((ours, theirs))
        return await ours.open(call, window)

    def lose(self) -> None:
        """Break all links."""
        for ours, theirs in self.muxes:
            ours.abort("the link was cut")
            theirs.abort("the link was cut")
        self.muxes.clear()

    def _serve(self, stream: Stream) -> None:
        self.serving.append(self.tasks.create_task(self._served(stream)))

    async def until(self, good: Callable[[], bool]) -> None:
        """Let everything go on until something holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not good():  # noqa: ASYNC110 - many things may make it true
                await asyncio.sleep(0)

    async def _served(self, stream: Stream) -> None:
        async with stream:
            try:
                await self.answer(stream)
            except StreamClosed:
                return  # the other side has gone


async def nothing(stream: Stream) -> None:
    """An agent that serves no stream."""
    await stream.close(code="bad_call", why="nothing is served here")


def speaking(
    lines: Mapping[int, Sequence[LogLine]], then: Callable[[], Awaitable[None]] | None = None
) -> Answer:
    """An agent that has these lines of each rank, and then waits for `then` when followed."""

    async def answer(stream: Stream) -> None:
        call = stream.call
        assert isinstance(call, LogsCall)
        rank = int(call.kernel.rpartition("-")[2])
        found = [line for line in lines.get(rank, ()) if line.at_ns > call.since_ns]
        if call.tail >= 0:
            found = found[len(found) - min(call.tail, len(found)) :]
        for chunk in loglines.pack(found):
            await stream.write(STDOUT, chunk)
        if call.follow and then is not None:
            await then()
        await stream.close()

    return answer


@dataclass
class Scene:
    """A manager's API with tokens for `ada` (user), `bob` (user), `eve` (read-only), `root`."""

    client: TestClient  # type: ignore[type-arg]
    store: SqliteStore
    clock: TestClock
    link: LocalLink
    chimes: Chimes
    tokens: dict[str, str]
    changed: list[SessionId]
    doors: Doors
    entrance: Entrance

    def as_(self, user: str) -> dict[str, str]:
        """Headers of a caller."""
        return {"Authorization": f"Bearer {self.tokens[user]}"}

    async def get(self, url: str, user: str = "ada", **headers: str) -> ClientResponse:
        return await self.client.get(url, headers=self.as_(user) | headers)

    async def post(
        self, url: str, body: object, user: str = "ada", **headers: str
    ) -> ClientResponse:
        data = io.BytesIO(body if isinstance(body, bytes) else msgspec.json.encode(body))
        sent = self.as_(user) | {"Content-Type": "application/json"} | headers
        return await self.client.post(url, data=data, headers=sent)

    async def submit(self, user: str = "ada", **fields: object) -> SessionView:
        """Submit the sample session with some fields changed."""
        response = await self.post("/v1/sessions", SPEC | {"resources": SMALL} | fields, user)
        assert 201 == response.status, await response.text()
        return msgspec.json.decode(await response.read(), type=SessionView)

    async def view(self, ref: str, user: str = "ada") -> SessionView:
        response = await self.get(f"/v1/sessions/{ref}", user)
        return msgspec.json.decode(await response.read(), type=SessionView)

    async def row(self, session: SessionId) -> SessionRow:
        found = await self.store.session(session, Caller("root", "admin"))
        assert isinstance(found, SessionRow)
        return found

    async def placed(self, user: str = "ada", **fields: object) -> SessionRow:
        """Submit, and give it a place."""
        return await self.place((await self.submit(user, **fields)).id)

    async def place(self, session: SessionId) -> SessionRow:
        """Give a session a place."""
        plan = seat.plan(await self.store.load(), await self.row(session), POOL, self.clock.now())
        assert isinstance(plan, seat.Placement), plan
        assert await self.store.place(plan, self.clock.now())
        return await self.row(session)

    async def running(self, user: str = "ada", **fields: object) -> SessionRow:
        """Submit, place, and let it run."""
        row = await self.placed(user, **fields)
        await self.move(row.session.id, KernelState.RUNNING)
        return await self.row(row.session.id)

    async def move(self, session: SessionId, state: KernelState, **facts: object) -> None:
        """Report all kernels in a state."""
        changes = []
        for kernel in (await self.row(session)).kernels:
            steps = path(kernel.state, state, Owner.AGENT)
            assert steps is not None
            known = replace(kernel, container_id=f"c{kernel.rank}", **facts)  # type: ignore[arg-type]
            after = moved(known, steps, self.clock.now()) if steps else known
            texts = tuple(f"rank {kernel.rank} is {step.name}" for step in steps)
            changes.append(KernelChange(kernel.state, steps, Owner.AGENT, after, texts))
        assert await self.store.record(changes, (), self.clock.now())


async def problem(response: ClientResponse) -> Problem:
    """Read a refusal."""
    assert "application/problem+json" == response.content_type, await response.text()
    found = msgspec.json.decode(await response.read(), type=Problem)
    assert found.status == response.status
    return found


async def add_agent(
    store: SqliteStore, name: str, now: datetime, slots: Slots, key: str = ""
) -> None:
    """Let an agent join and report."""
    key = key or f"{name:k<40}"[:40]
    token = TokenRow(
        f"join-{name}", "agent", "", "user", ClusterName("default"), now,
        now + timedelta(hours=1), public_key=key[::-1],
    )  # fmt: skip
    await store.add_token(token)
    await store.use_agent_token(key[::-1], AgentId(name), key, now)
    await store.link(AgentId(name), up=True, at=now)
    seen = Observed("boot", -1, slots, "10.0.0.1", Engine("27.0", "1.47"))
    await store.saw(AgentId(name), seen, now)


@asynccontextmanager
async def scene(
    folder: Path, answer: Answer = nothing, rates: Rates | None = None
) -> AsyncIterator[Scene]:
    """Open the API."""
    clock, chimes, changed = TestClock(), Chimes(), list[SessionId]()

    def rang(session: SessionId) -> None:
        changed.extend([session] if session else [])
        chimes.ring(session)

    store = SqliteStore.open(MEMORY, clock.now(), "cluster-1", rang)
    await add_agent(store, "gpu-1", clock.now(), Slots(64_000, 256 << 30, 0, 1_000_000))
    users: dict[str, Scope] = {"ada": "user", "bob": "user", "eve": "read-only", "root": "admin"}
    tokens = {user: auth.spell_secret(user.encode().ljust(32)) for user in users}
    for user, scope in users.items():
        await store.add_token(
            TokenRow(
                f"token-{user}", "bearer", user, scope, ClusterName(""), clock.now(), None,
                secret_hash=auth.secret_hash(tokens[user]),
            )
        )  # fmt: skip
    uploads = Uploads(folder / "uploads")
    uploads.prepare()
    serial = itertools.count(1)
    async with asyncio.TaskGroup() as tasks:
        link = LocalLink(tasks, answer)
        shares = Shares(link)
        doors = Doors(
            store,
            link,
            clock,
            chimes,
            lambda count: next(serial).to_bytes(count, "little"),
            uploads,
            Joining(("tcp://10.0.0.9:7911",), SERVER_KEY),
            Limits(),
            rates or Rates(),
            shares=shares,
            steps=Steps(shares),
            outputs=Outputs(shares, tasks),
        )
        entrance = Entrance.to(doors)
        server = TestServer(build(entrance))
        await server.start_server(max_field_size=_HEADER_BYTES)
        async with TestClient(server) as client:
            yield Scene(client, store, clock, link, chimes, tokens, changed, doors, entrance)
            link.lose()
        for task in link.serving:
            task.cancel()
    store.close()


async def sse(response: ClientResponse) -> AsyncIterator[tuple[str, str, str]]:
    """Read server-sent events as (id, name, data)."""
    fields: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields.get("id", ""), fields.get("event", ""), fields.get("data", "")
            fields = {}


def closed(stream: Stream) -> Closed:
    """The end of a stream that has ended."""
    assert stream.closed is not None
    return stream.closed


async def turns(count: int = 200) -> None:
    """Let everything that can go on go on."""
    for _turn in range(count):
        await asyncio.sleep(0)
