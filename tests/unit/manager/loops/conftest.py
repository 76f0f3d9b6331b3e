"""The three loops around a store, with agents that are played by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path

import msgspec
import pytest

from phalanx_manager.core.model import Caller, SessionRow
from phalanx_manager.loops.converge import Converge
from phalanx_manager.loops.govern import Govern
from phalanx_manager.loops.schedule import Schedule
from phalanx_manager.store.port import Created, Joined, NewSession, TokenRow
from phalanx_manager.store.sqlite import SqliteStore
from phalanx_wire.control import Assignment, Goals, KernelReport, NetworkReport, Observed
from phalanx_wire.ids import AgentId, KernelId, SessionId
from phalanx_wire.lifecycle import KernelState
from tests.support.house import CLUSTER, NOW, SID, admitted, in_swarm, observed

ADA = Caller("ada", "user")


class HandClock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.passed_s)

    def monotonic_s(self) -> float:
        return self.passed_s


class Post:
    """The way down: keeps what each agent was told last; agents in `away` get nothing."""

    def __init__(self) -> None:
        self.told: dict[AgentId, Goals] = {}
        self.count = 0
        self.away: set[AgentId] = set()

    async def send(self, agent: AgentId, goals: Goals) -> bool:
        if agent in self.away:
            return False
        self.count += 1
        self.told[agent] = goals
        return True


class House:
    """A manager's inside, stepped by hand: `settle` turns its loops until nothing rings."""

    def __init__(self, path: str) -> None:
        self.clock = HandClock()
        self.path = path
        self.begin()

    def begin(self) -> None:
        self.post = Post()
        self.store = SqliteStore.open(self.path, self.clock.now(), "cid", self.touch)
        self.schedule = Schedule(self.store, self.clock, IPv4Network("10.213.0.0/16"))
        self.converge = Converge(self.store, self.clock, self.schedule.bell, ["192.0.2.100"])
        self.govern = Govern(
            self.store,
            self.clock,
            self.converge.silence_s,
            300,
            touched=self.converge.touch,
        )
        self.converge.attach(self.post)

    def kill(self) -> None:
        """Begin anew from the file alone, as after kill -9."""
        self.store.close()
        self.clock.passed_s += 1
        self.begin()

    def touch(self, session: SessionId) -> None:
        if hasattr(self, "converge"):
            self.converge.touch(session)
            self.schedule.bell.ring()

    async def settle(self) -> None:
        for _ in range(4):
            for loop in (self.schedule, self.converge):
                loop.bell.ring()
                await loop.turn()

    async def join(self, *names: str) -> None:
        for name in names:
            token = TokenRow(name, "agent", "", "user", CLUSTER, NOW, None, public_key=f"k{name}")
            await self.store.add_token(token)
            joined = await self.store.use_agent_token(f"k{name}", AgentId(name), f"o{name}", NOW)
            assert isinstance(joined, Joined)

    async def submit(self, session: SessionId = SID, **fields: object) -> None:
        wanted = admitted(**{"name": f"name-{session[:4]}", **fields})
        outcome = await self.store.submit(NewSession(session, ADA, wanted, self.clock.now()))
        assert isinstance(outcome, Created)

    async def row(self, session: SessionId = SID) -> SessionRow:
        found = await self.store.session(session, ADA)
        assert isinstance(found, SessionRow)
        return found


class Player:
    """An agent as the manager sees one: it does what it is told, at once."""

    def __init__(self, house: House, name: str, base: Observed | None = None) -> None:
        self.house = house
        self.name = AgentId(name)
        self.base = base or observed(name)
        self.states: dict[KernelId, KernelReport] = {}
        self.networks: dict[str, str] = {}

    def connect(self) -> None:
        self.house.converge.connected(self.name)
        self.say()

    def say(self) -> None:
        told = self.house.post.told.get(self.name)
        self.house.converge.observed(
            self.name,
            msgspec.structs.replace(
                self.base,
                revision=told.revision if told else -1,
                kernels=tuple(self.states.values()),
                networks=tuple(NetworkReport(n, e) for n, e in self.networks.items()),
            ),
        )

    def obey(self, *, code: int = 0) -> None:
        """Bring all to its goal; what runs ends with the code when it is told to run again."""
        told = self.house.post.told[self.name]
        named = {assignment.kernel for assignment in told.kernels}
        self.states = {k: s for k, s in self.states.items() if k in named}
        for assignment in told.kernels:
            self.states[assignment.kernel] = self._next(assignment, code)
        for goal in told.networks:
            if goal.present:
                self.networks[goal.network.name] = "e" * 64
            else:
                self.networks.pop(goal.network.name, None)
        self.say()

    def _next(self, assignment: Assignment, code: int) -> KernelReport:
        known = self.states.get(assignment.kernel)
        state = known.state if known else KernelState.ASSIGNED
        if assignment.goal is KernelState.RUNNING and state is KernelState.RUNNING:
            return KernelReport(
                assignment.kernel, KernelState.EXITED, cause="exited", exit_code=code
            )
        if state > assignment.goal and known is not None:
            return known
        return KernelReport(
            assignment.kernel,
            assignment.goal,
            host_key=f"H{assignment.kernel}",
            user_key=f"U{assignment.kernel}",
        )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(str(tmp_path / "phalanx.db"))
    yield made
    made.store.close()


async def two_hosts(house: House) -> tuple[Player, Player]:
    """The agents `a`, whose engine speaks for the swarm, and `b`, connected."""
    await house.join("a", "b")
    players = (
        Player(house, "a", in_swarm("a", control=True, cpu=4)),
        Player(house, "b", in_swarm("b", cpu=4)),
    )
    for player in players:
        player.connect()
    await house.settle()
    return players
