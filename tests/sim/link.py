"""The network between agents and their manager: slow, lossy, cut, half open.

A connection is in order and loses nothing until it breaks, as TCP is; in a wild climate single
messages are lost, doubled and overtaken too, but those of streams, which do not claim to bear it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from phalanx_agent.rpc.manager import UNHEARD_S, LinkHandler
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.greeting import Incarnations
from phalanx_manager.rpc.port import AgentHandler
from phalanx_wire.codec import AnyMessage, decode, encode
from phalanx_wire.control import (
    FORGOTTEN,
    PROTOCOL,
    Beat,
    Goals,
    Heard,
    Hello,
    Message,
    Observed,
    Refused,
    Welcome,
)
from phalanx_wire.ids import AgentId
from phalanx_wire.mux import Mux, Stream, StreamClosed
from phalanx_wire.stream import Call
from tests.sim.climate import Climate
from tests.sim.dice import Dice
from tests.sim.process import Process
from tests.sim.virtual_loop import TICK_S

HEARTBEAT_TTL_S: Final = 8.0
HELLO_EVERY_S: Final = 1.0
RETRY_S: Final = (0.1, 2.0)
WHOLE: Final = Hello | Welcome | Goals | Observed | Beat | Heard
"""What bears to be lost, doubled and overtaken."""


class Way:
    """One direction of a connection."""

    def __init__(self, air: Air, host: AgentId, deliver: Callable[[bytes], None]) -> None:
        self._air = air
        self._host = host
        self._deliver = deliver
        self._last_at = 0.0
        self._held: list[bytes] = []
        self.open = True
        self.blocked = False

    def send(self, message: Message) -> None:
        """Put a message on its way."""
        data = encode(message)
        if self.blocked:
            self._held.append(data)
            return
        copies = self._air.copies() if isinstance(message, WHOLE) else 1
        for _ in range(copies):
            loop = asyncio.get_running_loop()
            at = loop.time() + self._air.delay_s()
            if not self._air.overtaking:
                self._last_at = at = max(self._last_at + TICK_S, at)
            loop.call_at(at, self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if not self.open:
            return
        if self.blocked:
            self._held.append(data)
        else:
            self._deliver(data)

    def block(self, *, blocked: bool) -> None:
        """Begin or end to let nothing through; what is on its way waits."""
        self.blocked = blocked
        if not blocked:
            held, self._held = self._held, []
            loop = asyncio.get_running_loop()
            for data in held:
                at = loop.time() + self._air.delay_s()
                self._last_at = max(self._last_at + TICK_S, at)
                loop.call_at(self._last_at, self._arrive, data)


class Connection:
    """One dialled connection; each end learns of its end for itself."""

    def __init__(self, air: Air, host: AgentId, office: Office) -> None:
        self.host = host
        self.office = office
        self.heard: Callable[[bytes], None] = lambda _data: None
        self.broken = asyncio.Event()
        self.up = Way(air, host, lambda data: office.received(self, data))
        self.down = Way(air, host, self._came)
        self.gone = False
        self.mux = Mux(self._send_down, 0, lambda _open, _stream: None)

    async def _send_down(self, message: Message) -> None:
        if not self.gone:
            self.down.send(message)

    def _came(self, data: bytes) -> None:
        self.heard(data)

    def end_for_agent(self) -> None:
        self.down.open = False
        self.broken.set()

    def end_for_manager(self) -> None:
        self.gone = True
        self.mux.abort("The connection to the agent broke.")
        self.up.open = False
        self.office.lost(self)


@dataclass
class Seen:
    """The newest lead that has welcomed an agent."""

    epoch: int = 0


class Air:
    """All connections, and what is between their ends.

    Attributes:
        offices: of the managers that lead, or think so.
        seen: what each agent has on its disk of who leads.
        overtaking: messages of one direction may overtake each other.
        several: agents know more than one manager.
    """

    def __init__(self, climate: Climate, seed: int) -> None:
        self.offices: list[Office] = []
        self.seen: dict[AgentId, Seen] = {}
        self.overtaking = climate.wild
        self.several = climate.managers > 1
        self._dice = Dice(seed, "link")
        self._delay_s = climate.delay_s
        self._loss = climate.loss if climate.wild else 0.0
        self._cut: dict[AgentId, tuple[bool, bool]] = {}
        self._connections: list[Connection] = []

    def heal(self) -> None:
        """Make everything work from now on."""
        self._loss, self._delay_s, self.overtaking = 0.0, 0.002, False
        for host in list(self._cut):
            self.cut(host, up=False, down=False)

    def delay_s(self) -> float:
        return self._dice.skewed(0.0002, max(self._delay_s, 0.0004))

    def copies(self) -> int:
        """Tell how often a message arrives."""
        if self._loss and self._dice.chance(self._loss):
            return self._dice.pick((0, 0, 2))
        return 1

    def cut(self, host: AgentId, *, up: bool, down: bool) -> None:
        """Block directions between an agent and the manager, or open them again."""
        self._cut[host] = (up, down)
        for connection in self._of(host):
            connection.up.block(blocked=up)
            connection.down.block(blocked=down)
            if up or down:
                asyncio.get_running_loop().call_later(HEARTBEAT_TTL_S, self._expire, connection)

    def _expire(self, connection: Connection) -> None:
        """Heartbeats are missed on a connection that is still cut: both ends give it up."""
        if any(self._cut.get(connection.host, (False, False))):
            connection.end_for_agent()
            connection.end_for_manager()

    def _of(self, host: AgentId) -> list[Connection]:
        self._connections = [one for one in self._connections if not self._over(one)]
        return [one for one in self._connections if one.host == host]

    def _over(self, connection: Connection) -> bool:
        return connection.broken.is_set() and connection.gone

    def dial(self, host: AgentId) -> Connection | None:
        """Connect, if there is a manager and a way to it."""
        if not self.offices or any(self._cut.get(host, (False, False))):
            return None
        several = len(self.offices) > 1
        office = self._dice.pick(self.offices) if several else self.offices[0]
        connection = Connection(self, host, office)
        self._connections.append(connection)
        return connection

    def agent_died(self, host: AgentId, *, silently: bool) -> None:
        """The host's kernel closes the connections of a dead process; a dead host closes none."""
        for connection in self._of(host):
            connection.end_for_agent()
            delay_s = HEARTBEAT_TTL_S if silently or connection.up.blocked else self.delay_s()
            asyncio.get_running_loop().call_later(delay_s, connection.end_for_manager)

    def manager_died(self, office: Office) -> None:
        """All its connections end; agents notice soon, or by heartbeats where the way is cut."""
        if office in self.offices:
            self.offices.remove(office)
        for connection in self._connections:
            if connection.office is not office:
                continue
            connection.gone = True
            connection.up.open = False
            delay_s = HEARTBEAT_TTL_S if connection.down.blocked else self.delay_s()
            asyncio.get_running_loop().call_later(delay_s, connection.end_for_agent)


class Office:
    """The manager's end: the `Link` of its loops, and the greeting of agents.

    Attributes:
        heard_s: when each agent was last heard, for the checkers.
        began_s: when the manager began to listen.
    """

    def __init__(
        self,
        process: Process,
        handler: AgentHandler,
        welcome: Welcome,
        surely_leads: Callable[[], bool] = lambda: True,
        knows: Callable[[AgentId], bool] = lambda _: True,
    ) -> None:
        self.heard_s: dict[AgentId, float] = {}
        self.began_s = asyncio.get_running_loop().time()
        self.handler = handler
        self._process = process
        self._welcome = welcome
        self._surely_leads = surely_leads
        self._knows = knows
        self._links: dict[AgentId, Connection] = {}
        self._incarnations: dict[AgentId, Incarnations] = {}

    async def send(self, agent: AgentId, goals: Goals) -> bool:
        self._process.point("link.goals.before")
        connection = self._links.get(agent)
        if connection is None or not self._surely_leads():
            return False
        connection.down.send(goals)
        self._process.point("link.goals.after")
        return True

    async def dismiss(self, agent: AgentId, why: str) -> None:
        """Tell an agent that it is not known any more, and end its link."""
        connection = self._links.get(agent)
        if connection is not None:
            connection.down.send(Refused(FORGOTTEN, why))
            self.lost(connection)

    async def open(self, agent: AgentId, call: Call) -> Stream:
        """See `rpc.signals.Link`."""
        connection = self._links.get(agent)
        if connection is None:
            raise Unavailable(f"agent {agent}", "opening a stream", "It is not connected.")
        try:
            return await connection.mux.open(call)
        except StreamClosed as error:
            raise Unavailable(f"agent {agent}", "opening a stream", str(error)) from error

    def received(self, connection: Connection, data: bytes) -> None:
        """Something came from an agent."""
        self._process.inside(lambda message: self._take(connection, message), decode(data))

    def _take(self, connection: Connection, message: AnyMessage) -> None:
        match message:
            case Hello() as hello:
                self._greet(connection, hello)
            case Observed() as observed if self._links.get(connection.host) is connection:
                self.heard_s[connection.host] = asyncio.get_running_loop().time()
                self.handler.observed(connection.host, observed)
            case Beat(number=number) if self._links.get(connection.host) is connection:
                self.heard_s[connection.host] = asyncio.get_running_loop().time()
                self.handler.alive(connection.host)
                if self._surely_leads():
                    connection.down.send(Heard(number))
            case _:
                connection.mux.receive(message)

    def _greet(self, connection: Connection, hello: Hello) -> None:
        if not self._surely_leads():
            return
        if not self._knows(hello.name):
            connection.down.send(Refused("unknown_key", "the manager does not know this key"))
            return
        if not self._incarnations.setdefault(hello.name, Incarnations()).enter(hello.incarnation):
            return
        old = self._links.get(hello.name)
        if old is not connection:
            if old is not None:
                self.lost(old)
            self._links[hello.name] = connection
        connection.down.send(self._welcome)
        if old is not connection:
            self.heard_s[hello.name] = asyncio.get_running_loop().time()
            self.handler.connected(hello.name)

    def lost(self, connection: Connection) -> None:
        """A connection has broken."""
        if self._links.get(connection.host) is connection:
            del self._links[connection.host]
            self._process.inside(self.handler.disconnected, connection.host)


class Dialler:
    """The agent's end: dials for ever, and says what its board says."""

    def __init__(self, process: Process, host: AgentId, air: Air, dice: Dice) -> None:
        self._process = process
        self._host = host
        self._air = air
        self._dice = dice
        self._connection: Connection | None = None
        self._welcomed = False
        self._heard_s = 0.0
        self._seen = air.seen.setdefault(host, Seen())

    def say(self, message: Observed | Beat) -> bool:
        if self._connection is None or not self._welcomed or not self._process.alive:
            return False
        self._process.point("link.observed.before")
        self._connection.up.send(message)
        self._process.point("link.observed.after")
        return True

    async def run(self, hub: LinkHandler) -> None:
        """Stay connected for ever."""
        hello = Hello(PROTOCOL, "sim", self._host, self._process.name)
        while True:
            await asyncio.sleep(self._dice.skewed(*RETRY_S))
            connection = self._air.dial(self._host)
            if connection is None:
                continue
            self._connection, self._welcomed = connection, False
            self._heard_s = asyncio.get_running_loop().time()
            mux = Mux(self._sender(connection), 1, hub.opened)
            connection.heard = lambda data, connection=connection, mux=mux: self._process.inside(  # type: ignore[misc]
                lambda message: self._hear(message, hub, (connection, mux)), decode(data)
            )
            while not connection.broken.is_set():
                if not self._welcomed:
                    connection.up.send(hello)
                try:
                    async with asyncio.timeout(self._patience_s()):
                        await connection.broken.wait()
                except TimeoutError:
                    if self._patience_s() == 0:
                        connection.end_for_agent()
            self._connection = None
            mux.abort("The connection to the manager broke.")
            if self._welcomed:
                hub.disconnected()

    def _patience_s(self) -> float | None:
        """Tell when something is to be done: the next greeting, or to leave who does not answer."""
        if not self._air.several:
            return None if self._welcomed else HELLO_EVERY_S
        left_s = max(self._heard_s + UNHEARD_S - asyncio.get_running_loop().time(), 0.0)
        return left_s if self._welcomed else min(left_s, HELLO_EVERY_S)

    def _sender(self, connection: Connection) -> Callable[[Message], Awaitable[None]]:
        async def send(message: Message) -> None:
            if self._process.alive:
                connection.up.send(message)

        return send

    def _hear(self, message: AnyMessage, hub: LinkHandler, line: tuple[Connection, Mux]) -> None:
        connection, mux = line
        match message:
            case Welcome(epoch=epoch) if epoch < self._seen.epoch:
                connection.broken.set()
            case Welcome() as welcome:
                self._seen.epoch = welcome.epoch
                first, self._welcomed = not self._welcomed, True
                if first:
                    hub.welcomed(welcome)
            case Refused(code=code, why=why):
                connection.end_for_agent()
                hub.unknown(why, told=code == FORGOTTEN)
            case _ if connection.broken.is_set() or not self._welcomed:
                pass
            case Goals() as goals:
                hub.goals(goals)
            case Heard(number=number):
                self._heard_s = asyncio.get_running_loop().time()
                hub.heard(number)
            case _:
                mux.receive(message)
