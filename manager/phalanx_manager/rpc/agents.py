"""All agents at one ROUTER socket: who is there, what they say, and streams to them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog
import zmq
import zmq.asyncio
import zmq.utils.monitor

from phalanx_manager.core.doubt import doubt
from phalanx_manager.groups import bare
from phalanx_manager.rpc import greeting
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.keys import ServerKeys
from phalanx_manager.rpc.port import AgentHandler, House, KeyDirectory
from phalanx_manager.rpc.self_test import refuses_strangers
from phalanx_manager.rpc.sockets import bind_router
from phalanx_manager.rpc.zap import Door
from phalanx_wire.codec import MAX_GOALS_BYTES, decode, encode
from phalanx_wire.control import (
    FORGOTTEN,
    Beat,
    Enrol,
    Goals,
    Heard,
    Hello,
    Message,
    Observed,
    Refused,
)
from phalanx_wire.ids import AgentId
from phalanx_wire.mux import Mux, Stream, StreamClosed
from phalanx_wire.stream import WINDOW_BYTES, Call, Credit, Open

_GREETINGS_AT_ONCE: Final = 256
_FAIR_BYTES, _FAIR_LEAST = 256 << 10, 4 << 10  # taken in one turn, and what any message counts
_PROBE: Final = Credit(-1, 0)
"""Ignored by every agent; sending it tells whether the connection is there."""

_PROBES_S: Final = (0.0, 0.05, 1.0)
_TAKES_S: Final = 10.0
"""Whoever has no room for a message for so long is as good as gone, and must greet again."""

_FULL_S: Final = (0.001, 0.02)  # until a full link is tried again, at first and at most
_NONSENSE_ALLOWED: Final = 10
_KEPT: Final = 4096

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Link:
    """One connection that has said hello.

    Attributes:
        turn: of what streams send to it: first come, first served.
        room: of whoever sends next; what is said beside streams waits for one of theirs at most.
    """

    agent: AgentId
    key: str
    route: bytes
    descriptor: int
    incarnation: str
    mux: Mux
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    room: asyncio.Lock = field(default_factory=asyncio.Lock)
    nonsense: int = 0


class Agents:
    """The connected agents. Made by `listen`.

    Attributes:
        address: what was bound, with the real port.
        door: counts refused handshakes.
    """

    def __init__(
        self,
        socket: zmq.asyncio.Socket,
        door: Door,
        wants: tuple[AgentHandler, KeyDirectory, House],
    ) -> None:
        self.address = socket.get_string(zmq.LAST_ENDPOINT)
        self.door = door
        self._socket = socket
        self._handler, self._directory, self._house = wants
        self._links: dict[AgentId, _Link] = {}
        self._routes: dict[bytes, _Link] = {}
        self._incarnations: dict[AgentId, greeting.Incarnations] = {}
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._greetings = 0
        self._tasks: asyncio.TaskGroup | None = None

    @staticmethod
    @asynccontextmanager
    async def listen(
        bind: str, keys: ServerKeys, handler: AgentHandler, directory: KeyDirectory, house: House
    ) -> AsyncIterator[Agents]:
        """Open the agents' port: `tcp://0.0.0.0:7911`. Ready when the context is entered.

        Raises:
            Unavailable: the address cannot be bound, or the door lets a stranger in.
        """
        context = zmq.asyncio.Context()
        try:
            with bare():
                door = Door(context, directory)
                socket, monitor = bind_router(context, bind, keys)
                agents = Agents(socket, door, (handler, directory, house))
                async with asyncio.TaskGroup() as tasks:
                    agents._tasks = tasks
                    running = [
                        tasks.create_task(door.run()),
                        tasks.create_task(agents._receive_all()),
                        tasks.create_task(agents._watch(monitor)),
                    ]
                    await refuses_strangers(context, agents.address, keys.public, door)
                    log.info("rpc.listening", address=agents.address)
                    try:
                        yield agents
                    finally:
                        for link in list(agents._links.values()):
                            agents._drop(link, "the manager is stopping")
                        for task in running:
                            task.cancel()
        finally:
            context.destroy(linger=0)

    # -------------------------------------------------------------- for the rest of the manager

    def connected(self) -> frozenset[AgentId]:
        """Tell who is there now."""
        return frozenset(self._links)

    async def send(self, agent: AgentId, goals: Goals) -> bool:
        """Send goals; False when the agent is not there or takes nothing more, or when another
        manager may lead, which knows more than these goals do.
        """
        link = self._links.get(agent) if self._house.surely_leads() else None
        return link is not None and await self._post(link, goals)

    async def open(self, agent: AgentId, call: Call, window: int = WINDOW_BYTES) -> Stream:
        """Open a stream to an agent.

        Raises:
            Unavailable: it is not connected.
        """
        link = self._links.get(agent)
        if link is None:
            raise Unavailable(
                f"agent {agent}", "it is not connected", f"look at the phalanx-agent on {agent}"
            )
        try:
            return await link.mux.open(call, window)
        except StreamClosed as error:
            raise Unavailable(f"agent {agent}", str(error), "try again") from error

    def expel(self, agent: AgentId) -> None:
        """End an agent's link: it has to greet again, and is let in or not."""
        link = self._links.get(agent)
        if link is not None:
            self._drop(link, "its join token was revoked")

    async def dismiss(self, agent: AgentId, why: str) -> None:
        """Tell an agent that it is not known any more, and end its link."""
        link = self._links.get(agent)
        if link is not None:
            await self._post(link, Refused(FORGOTTEN, why))
            self._drop(link, why)

    # -------------------------------------------------------------- down

    async def _post(self, link: _Link, message: Message) -> bool:
        data = encode(message)
        if len(data) > MAX_GOALS_BYTES:
            log.error("rpc.message.too_big", agent=link.agent, bytes=len(data))
            return False
        try:
            async with link.room, asyncio.timeout(_TAKES_S):
                return await self._pass(link, data)
        except TimeoutError:
            self._drop(link, f"it has had no room for {_TAKES_S:g} s")
        return False

    async def _pass(self, link: _Link, data: bytes) -> bool:
        """Hand a message over as soon as there is room for it; False when the link is gone."""
        wait_s, longest_s = _FULL_S
        while self._routes.get(link.route) is link:
            try:
                await self._socket.send_multipart([link.route, data], flags=zmq.DONTWAIT)
            except zmq.Again:
                await asyncio.sleep(wait_s)  # a ROUTER does not tell when one of many takes more
                wait_s = min(2 * wait_s, longest_s)
            except zmq.ZMQError as error:  # EHOSTUNREACH
                self._drop(link, f"its connection is gone ({error.strerror})")
            else:
                return True
        return False

    def _answer(self, link: _Link, message: Message) -> None:
        if self._tasks is not None:
            self._tasks.create_task(self._post(link, message))

    async def _reply(self, route: bytes, message: Message) -> None:
        try:
            await self._socket.send_multipart([route, encode(message)], flags=zmq.DONTWAIT)
        except zmq.ZMQError as error:
            log.debug("rpc.reply.lost", error=error.strerror)

    def _drop(self, link: _Link, why: str) -> None:
        if self._routes.pop(link.route, None) is None:
            return
        link.mux.abort(f"the link to agent {link.agent} was lost: {why}")
        if self._links.get(link.agent) is link:
            del self._links[link.agent]
            log.info("rpc.agent.disconnected", agent=link.agent, why=why)
            self._handler.disconnected(link.agent)

    # -------------------------------------------------------------- up

    async def _receive_all(self) -> None:
        taken = 0
        while True:
            frames = await self._socket.recv_multipart(copy=False)
            try:
                self._received(frames)
            except Exception:  # the one supervisor of this loop: one agent must not harm others
                log.exception("rpc.receive.failed")
            taken += max(_FAIR_LEAST, sum(map(len, frames)))
            if taken >= _FAIR_BYTES:
                taken = 0
                await asyncio.sleep(0)

    def _received(self, frames: list[zmq.Frame]) -> None:
        route, body = frames[0].bytes, frames[-1]
        key = str(body.get("User-Id"))
        link = self._routes.get(route)
        if len(frames) != 2:
            self._wrong_parts(link, key, len(frames) - 1)
            return
        if link is None:
            self._greet(route, body, key)
            return
        try:
            message = decode(body.buffer)
        except (msgspec.MsgspecError, RecursionError) as error:
            self._nonsense(link, str(error)[:200])
            return
        match message:
            case Observed():
                self._observed(link, message)
            case Beat():
                self._handler.alive(link.agent)  # before the answer, which it goes on by
                if self._house.surely_leads():
                    self._answer(link, Heard(message.number))
            case Hello() | Enrol():
                self._greet(route, body, key)
            case _:
                link.mux.receive(message)

    def _observed(self, link: _Link, report: Observed) -> None:
        why = doubt(report)
        if not why:
            self._handler.observed(link.agent, report)
            return
        refusal = Refused("bad_report", f"what agent {link.agent} says of its host is wrong: {why}")
        self._log_once(link.key, refusal)
        if self._tasks is not None:
            self._tasks.create_task(self._reply(link.route, refusal))
        self._drop(link, refusal.why)

    def _wrong_parts(self, link: _Link | None, key: str, parts: int) -> None:
        error = f"a message of {parts} parts"
        if link is not None:
            self._nonsense(link, error)
        else:
            self._log_once(key, Refused("nonsense", error))

    def _nonsense(self, link: _Link, error: str) -> None:
        link.nonsense += 1
        if link.nonsense == 1:
            log.warning("rpc.nonsense", agent=link.agent, error=error)
        if link.nonsense >= _NONSENSE_ALLOWED:
            self._drop(link, f"{link.nonsense} messages made no sense")

    def _greet(self, route: bytes, body: zmq.Frame, key: str) -> None:
        if self._tasks is None or self._greetings >= _GREETINGS_AT_ONCE:
            return  # agents say hello again
        if not self._house.surely_leads():
            return  # so do they here, or at the manager that leads
        self._greetings += 1
        descriptor = int(body.get(zmq.SRCFD))
        self._tasks.create_task(self._greeted(route, body.bytes, key, descriptor))

    async def _greeted(self, route: bytes, body: bytes, key: str, descriptor: int) -> None:
        try:
            reply = await greeting.answer(body, key, self._directory, self._house)
        except Unavailable as error:  # the agent says hello again
            log.warning("rpc.greeting.unanswered", key=key, why=str(error))
            return
        except Exception:  # supervisor of this task
            log.exception("rpc.greeting.failed", key=key)
            return
        finally:
            self._greetings -= 1
        match reply:
            case greeting.Admit():
                await self._admit(reply, route, key, descriptor)
            case Refused():
                self._log_once(key, reply)
                await self._reply(route, reply)
            case None:
                self._log_once(key, Refused("nonsense", "the first message made no sense"))
            case _:
                log.info("rpc.agent.enrolled", agent=reply.name)
                await self._reply(route, reply)

    async def _admit(self, new: greeting.Admit, route: bytes, key: str, descriptor: int) -> None:
        processes = self._incarnations.setdefault(new.agent, greeting.Incarnations())
        if not processes.enter(new.incarnation):
            refusal = Refused(
                "superseded",
                f"another process is agent {new.agent} now; stop one of them, and if its key was "
                "copied to another host, join there with a token of its own",
            )
            self._log_once(key, refusal)
            await self._reply(route, refusal)
            return
        if route in self._routes:
            await self._reply(route, new.welcome)
            return
        old = self._links.get(new.agent)
        if old is not None:
            self._drop(old, "a newer connection has taken its place")
        link = _Link(
            new.agent, key, route, descriptor, new.incarnation, self._mux(route, new.agent)
        )
        self._links[new.agent] = self._routes[route] = link
        log.info("rpc.agent.connected", agent=new.agent, version=new.version)
        if await self._post(link, new.welcome):
            self._handler.connected(new.agent)

    def _mux(self, route: bytes, agent: AgentId) -> Mux:
        async def send(message: Message) -> None:
            link = self._routes.get(route)
            if link is not None:
                async with link.turn:
                    await self._post(link, message)

        def opened(_open: Open, stream: Stream) -> None:
            if self._tasks is not None:
                self._tasks.create_task(self._serve(agent, stream))

        return Mux(send, 0, opened)

    async def _serve(self, agent: AgentId, stream: Stream) -> None:
        async with stream:
            try:
                await self._house.serve(agent, stream)
            except StreamClosed:
                return
            except Exception:  # supervisor of this task: one stream must not harm others
                log.exception("rpc.stream.failed", agent=agent)
                await stream.close(code="internal", why="the manager failed to serve this")

    def _log_once(self, key: str, refusal: Refused) -> None:
        told = (key, refusal.code)
        if told not in self._told:
            log.warning("rpc.agent.refused", key=key, code=refusal.code, why=refusal.why)
        self._told[told] = None
        self._told.move_to_end(told)
        if len(self._told) > _KEPT:
            self._told.popitem(last=False)

    async def _watch(self, monitor: zmq.asyncio.Socket) -> None:
        """Probe links whose connection may be gone, so that it is known at once."""
        while True:
            event = zmq.utils.monitor.parse_monitor_message(await monitor.recv_multipart())
            for link in self._links.values():
                if link.descriptor == event["value"] and self._tasks is not None:
                    self._tasks.create_task(self._probe(link))

    async def _probe(self, link: _Link) -> None:
        """A descriptor may be in use again, so its number alone proves nothing. A connection that
        was broken off in a message is still written to for a moment.
        """
        for wait_s in _PROBES_S:
            await asyncio.sleep(wait_s)
            if self._routes.get(link.route) is not link or not await self._post(link, _PROBE):
                return
