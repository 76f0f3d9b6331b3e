"""An agent's side of the link, and a directory of keys in memory, for tests of the real link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import zmq
import zmq.asyncio

from phalanx_manager.core.model import Refusal
from phalanx_manager.rpc.agents import Agents
from phalanx_manager.rpc.keys import ServerKeys, make_pair
from phalanx_manager.rpc.port import House, JoinKey, KnownAgent
from phalanx_wire.codec import AnyMessage, decode, encode
from phalanx_wire.control import PROTOCOL, Hello, Message, Observed, Welcome
from phalanx_wire.control import Engine as EngineReport
from phalanx_wire.ids import AgentId, ClusterName
from phalanx_wire.mux import Mux, Stream
from phalanx_wire.slots import Slots

PATIENCE_S = 10.0
LOCAL = "tcp://127.0.0.1:*"
WELCOME = Welcome("cluster-1", ClusterName("default"), 5.0, "10.212.0.0/20")
REPORT = Observed("boot", -1, Slots(cpu_milli=4000), "10.0.0.1", EngineReport("20.10", "1.41"))


def named(lines: list[dict[str, object]], event: str) -> list[dict[str, object]]:
    """Those of what was logged that are of one event."""
    return [line for line in lines if line["event"] == event]


@dataclass
class Directory:
    """Who owns which key, in memory."""

    agents: dict[str, AgentId] = field(default_factory=dict)
    tokens: dict[str, Refusal | None] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def who(self, public_key: str) -> KnownAgent | JoinKey | None:
        self.asked.append(public_key)
        if public_key in self.agents:
            return KnownAgent(self.agents[public_key], ClusterName("default"))
        return JoinKey() if public_key in self.tokens else None

    async def enrol(self, token_key: str, name: AgentId, agent_key: str) -> KnownAgent | Refusal:
        refusal = self.tokens[token_key]
        if refusal is not None:
            return refusal
        self.tokens[token_key] = Refusal("token_used", 409, "this join token was used before")
        self.agents[agent_key] = name
        return KnownAgent(name, ClusterName("default"))

    def add(self, name: str) -> ServerKeys:
        """Enrol an agent and return its keys."""
        keys = make_pair()
        self.agents[keys.public] = AgentId(name)
        return keys


@dataclass
class Handler:
    """Notes what the link tells; `told` grows as (what, agent)."""

    told: asyncio.Queue[tuple[str, str]] = field(default_factory=asyncio.Queue)
    reports: asyncio.Queue[tuple[AgentId, Observed]] = field(default_factory=asyncio.Queue)

    def connected(self, agent: AgentId) -> None:
        self.told.put_nowait(("connected", agent))

    def disconnected(self, agent: AgentId) -> None:
        self.told.put_nowait(("disconnected", agent))

    def alive(self, agent: AgentId) -> None:
        self.told.put_nowait(("alive", agent))

    def observed(self, agent: AgentId, observed: Observed) -> None:
        self.reports.put_nowait((agent, observed))

    async def next(self) -> tuple[str, str]:
        """Wait for what is told next."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.told.get()


async def refuse_streams(_agent: AgentId, stream: Stream) -> None:
    await stream.close(code="unknown_call", why="nothing is served here")


@dataclass
class Office:
    """A manager's side in this process."""

    agents: Agents
    directory: Directory
    handler: Handler
    keys: ServerKeys


@asynccontextmanager
async def office(
    serve: Callable[[AgentId, Stream], Awaitable[None]] = refuse_streams,
    surely_leads: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Office]:
    """Open a manager's port on the loopback."""
    directory, handler, keys = Directory(), Handler(), make_pair()
    house = House("cluster-1", 5.0, "10.212.0.0/20", serve, surely_leads=surely_leads)
    async with Agents.listen(LOCAL, keys, handler, directory, house) as agents:
        yield Office(agents, directory, handler, keys)


class Peer:
    """One DEALER connection with some key."""

    def __init__(self, context: zmq.asyncio.Context, office: Office, keys: ServerKeys) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.curve_serverkey = office.keys.public.encode()
        self.socket.curve_publickey = keys.public.encode()
        self.socket.curve_secretkey = keys.secret.encode()
        self.socket.heartbeat_ivl = 1000
        self._address = office.agents.address

    def connect(self) -> None:
        self.socket.connect(self._address)

    async def say(self, message: Message) -> None:
        await self.say_raw(encode(message))

    async def say_raw(self, *frames: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.socket.send_multipart(frames)

    async def hear(self) -> AnyMessage:
        async with asyncio.timeout(PATIENCE_S):
            return decode(await self.socket.recv())

    async def greet(self, name: str, incarnation: str = "one") -> AnyMessage:
        """Say hello, return the answer."""
        await self.say(Hello(PROTOCOL, "0.1.0", AgentId(name), incarnation))
        return await self.hear()

    async def serve(self, answer: Callable[[Stream], Awaitable[None]]) -> None:
        """Serve the manager's streams until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            mux = self.mux(lambda stream: tasks.create_task(_task(answer, stream)))
            await self.feed(mux)

    def mux(self, opened: Callable[[Stream], object]) -> Mux:
        return Mux(self.say, 1, lambda _open, stream: _ignore(opened(stream)))

    async def feed(self, mux: Mux) -> None:
        while True:
            message = decode(await self.socket.recv())
            if not isinstance(message, Welcome):
                mux.receive(message)


async def _task(answer: Callable[[Stream], Awaitable[None]], stream: Stream) -> None:
    async with stream:
        await answer(stream)


def _ignore(_result: object) -> None:
    return None


@asynccontextmanager
async def peer(office: Office, keys: ServerKeys, queue: int = 1_000) -> AsyncIterator[Peer]:
    """Connect with a key; closed at the end. So many messages wait here to be taken."""
    context = zmq.asyncio.Context()
    peer = Peer(context, office, keys)
    peer.socket.rcvhwm = queue
    try:
        peer.connect()
        yield peer
    finally:
        peer.socket.close(linger=0)
        context.destroy(linger=0)
