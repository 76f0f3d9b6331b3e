"""One life of a manager and of an agent: the production loops, wired as their mains wire them."""

# ruff: noqa: ARG002 - a double takes what its port takes
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from sqlite3 import SQLITE_FULL, OperationalError
from sqlite3 import Connection as SqliteConnection
from typing import Final

from phalanx_agent.core.recipe import Account
from phalanx_agent.host.inside import network_of
from phalanx_agent.loops.board import Board, Routes
from phalanx_agent.loops.commands import Commands
from phalanx_agent.loops.converge import Fleet
from phalanx_agent.loops.execs import Execs
from phalanx_agent.loops.hub import Hub
from phalanx_agent.loops.lease import Lease
from phalanx_agent.loops.leave import Leaving
from phalanx_agent.loops.streams import Streams
from phalanx_agent.loops.supervise import for_ever
from phalanx_agent.loops.swarm import SwarmMember
from phalanx_agent.loops.sweep import GuardLoop
from phalanx_agent.loops.watch import Watch
from phalanx_agent.loops.workshop import Workshop
from phalanx_manager.config import ManagerConfig
from phalanx_manager.serve import Loops
from phalanx_manager.store import sqlite
from phalanx_manager.store.database import MEMORY, Database
from phalanx_manager.store.sqlite import SqliteStore
from phalanx_wire.control import Welcome
from phalanx_wire.ids import AgentId, ClusterName, SessionId
from tests.sim.climate import Climate
from tests.sim.dice import Dice
from tests.sim.engine_line import EngineLine, Service
from tests.sim.host import EPOCH_S, Doors, SimHost, SimLogs, SimScratch, SimUploads
from tests.sim.link import Air, Dialler, Office
from tests.sim.process import Fate, Process
from tests.support.execs import FakeNotes

CLUSTER_ID: Final = "simulated"
POOL: Final = IPv4Network("10.213.0.0/16")


class SkewedClock:
    """The manager's clock: its wall is wrong by as much as its machine's is."""

    def __init__(self, skew_s: float) -> None:
        self.skew_s = skew_s

    def now(self) -> datetime:
        now_s = EPOCH_S + asyncio.get_running_loop().time() + self.skew_s
        return datetime.fromtimestamp(now_s, tz=UTC)

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


class LifeDatabase(Database):
    """One process's use of the durable database: it may die around each commit."""

    def __init__(self, connection: SqliteConnection, process: Process, disk: Disk) -> None:
        super().__init__("the database", connection, None)
        self._process = process
        self._disk = disk

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._process.point("store.commit.before")
        with super().transaction():
            yield
            self._disk.maybe_full()
            self._process.point("store.commit.inside")
        self._process.point("store.commit.after")


class Disk:
    """The manager's disk. `fault` is the chance that a commit finds it full."""

    def __init__(self, fault: float, dice: Dice) -> None:
        self.fault = fault
        self._dice = dice

    def maybe_full(self) -> None:
        """Fail as SQLite does on a full disk, now and then."""
        if self._dice.chance(self.fault):
            error = OperationalError("database or disk is full")
            error.sqlite_errorcode = SQLITE_FULL
            raise error


class ManagerLife(Process):
    """One process of the manager, over the durable database.

    Attributes:
        changed: called with each session that a commit has changed.
        office: where agents reach it; None while it does not lead.
    """

    def __init__(
        self,
        number: int,
        fate: Fate,
        climate: Climate,
        durable: tuple[SqliteConnection, Disk],
        changed: Callable[[SessionId], None],
    ) -> None:
        super().__init__("manager", f"manager#{number}", fate)
        dice = Dice(number, "manager's clock")
        self.clock = SkewedClock(dice.between(-climate.skew_s, climate.skew_s))
        self._changed = changed
        self.office: Office | None = None
        self._loops: Loops | None = None
        self._database = LifeDatabase(durable[0], self, durable[1])
        self._config = ManagerConfig(
            pool=POOL,
            lost_after_s=climate.lost_after_s,
            swarm="eager" if climate.eager_swarm else "on-demand",
        )

    def open(self) -> Office | None:
        """Read the database and open the agents' door; run when the process begins.

        Raises:
            Crash: it dies at it.
        """
        with _opened(self._database):
            self.store = SqliteStore.open(MEMORY, self.clock.now(), CLUSTER_ID, self._touched)
        self._loops = Loops(self.store, self.clock, self._config, ())
        greeting = welcome(CLUSTER_ID, self.store.epoch)
        office = Office(self, self._loops.converge, greeting, knows=self._knows)
        self._attach(office)
        return office

    def _knows(self, agent: AgentId) -> bool:
        return agent in self.store._agents

    def _attach(self, office: Office) -> None:
        """Lead by this door."""
        assert self._loops is not None
        self.office = office
        self._loops.converge.attach(office)
        self._loops.retire.attach(office.dismiss)

    def _touched(self, session: SessionId) -> None:
        self._changed(session)
        if self._loops is not None and self.alive:
            self._loops.touch(session)

    async def run(self) -> None:
        assert self._loops is not None
        async with asyncio.TaskGroup() as tasks:
            self._loops.start(tasks)


def welcome(cluster_id: str, epoch: int) -> Welcome:
    """Spell what a manager answers to a greeting."""
    return Welcome(cluster_id, ClusterName("default"), 5.0, "10.212.0.0/20", epoch)


@contextmanager
def _opened(database: Database) -> Iterator[None]:
    """Have the store open this database, which outlives processes."""
    usual = vars(sqlite)["Database"]
    vars(sqlite)["Database"] = _Opener(database)
    try:
        yield
    finally:
        vars(sqlite)["Database"] = usual


@dataclass(frozen=True)
class _Opener:
    """In place of the class that opens a file."""

    database: Database

    def open(self, _path: str) -> Database:
        return self.database


class NoRules:
    """Firewall rules that are always in force."""

    async def keep(self, guarded: Iterable[str]) -> None:
        await asyncio.sleep(0.001)


class AgentLife(Process):
    """One process of an agent, over its durable host."""

    def __init__(self, host: SimHost, service: Service, air: Air, fate: Fate) -> None:
        host.lives += 1
        super().__init__("agent", f"{host.name}#{host.lives}", fate)
        loop = asyncio.get_running_loop()
        self.host = host
        docker = EngineLine(self, service)
        logs = SimLogs(self, host)
        self.workshop = Workshop(
            docker=docker,
            scratch=SimScratch(self, host),
            logs=logs,
            uploads=SimUploads(self, host),
            listen=Doors(self, host).listen,
            ask_door=lambda _kernel, _folder: nullcontext(),
            bundle="/bundle",
            judge_mounts=lambda _mounts: (),
            lives=lambda _pid: True,
            mounts_hold=lambda _pid, _binds: True,
            end_remains=_nothing_is_left,
            silent=_all_answer,
            check_ports=host.check_ports,
            account=_root,
            signal_tasks=lambda _kernel, _number: 0,
            clock=loop.time,
            lease=Lease(loop.time),
            wall=host.wall,
        )
        self.dialler = Dialler(self, host.name, air, host.dice)
        self.board = Board(f"boot-{host.boots}", self.dialler.say)
        self.fleet = Fleet(host.name, self.workshop, self.board)
        self.guard = GuardLoop(NoRules(), partial(self.board.hinder, "guard"))
        self.watch = Watch(self.workshop, self.fleet, self.board, self.guard.look_again)
        self.swarm = SwarmMember(docker, lambda: host.address, self.board.swarm, self._enters)
        execs = Execs(docker, Commands(docker, FakeNotes()))
        self.streams = Streams(docker, self.fleet, logs, network_of, execs, Path())
        self.hub = Hub(
            self.board,
            self.fleet,
            self.swarm,
            self.streams,
            self._welcomed,
            self.guard.take,
        )
        self.hub.leaving = self.leaving = Leaving(
            docker, self._clear, lambda: host.files.entered_at, self.board.left, lambda _whys: None
        )
        self._gone = partial(air.agent_died, host.name, silently=False)

    def _enters(self) -> None:
        self.host.files.entered_at = self.host.wall()

    async def _clear(self) -> None:
        self.point("leave.clear")
        files = self.host.files
        for kernel in files.scratch.kernels():
            files.scratch.clear(kernel)
        files.keys.clear()
        files.left = True

    def _welcomed(self, answer: Welcome) -> None:
        self.workshop.egress_subnet = answer.egress_subnet
        self.watch.bell.set()

    async def run(self) -> None:
        host = self.host
        routes = Routes((host.address,), (), host.network)
        self.board.host(host.capacity, host.address, host.gpus, routes)
        loops: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            ("fleet", self.fleet.run),
            ("events", self.watch.events),
            ("listings", self.watch.listings),
            ("swarm", self.swarm.run),
            ("streams", self.streams.run),
            ("guard", self.guard.run),
        )
        links: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            ("link", lambda: self.dialler.run(self.hub)),
            ("heartbeat", self.hub.heartbeat),
        )
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(for_ever(name, loop), name=name) for name, loop in loops]
            talking = [tasks.create_task(for_ever(name, loop), name=name) for name, loop in links]
            if host.files.left:
                self.leaving.begin()
            await self.leaving.begun.wait()
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            await self.leaving.take_all_away()
            await self.leaving.dismissed
            for task in talking:
                task.cancel()
        self.alive = False
        host.dismissed = True
        self._gone()


async def _nothing_is_left(_container_id: str) -> None:
    """Simulated engines know all that they have begun."""


async def _all_answer(_addresses: object) -> frozenset[str]:
    """Simulated hosts reach each other; what is lost is lost on the way to the manager."""
    return frozenset()


async def _root(_image: object, _user: str) -> Account:
    return Account(0, 0, "root", "/root")
