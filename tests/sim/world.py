"""A whole cluster on virtual time: one seed, from its first session until nothing moves."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import traceback
from collections.abc import Callable
from functools import cache
from typing import Final

from phalanx_manager.core.explain import session_reason
from phalanx_manager.core.model import Cluster
from phalanx_manager.store.database import MEMORY, Database
from phalanx_manager.store.port import Joined, TokenRow, Unavailable
from phalanx_wire.ids import AgentId, ClusterName, KernelId, SessionId, split_kernel_id
from tests.sim.auditor import Auditor
from tests.sim.climate import DEFAULT, SIDE, Climate, climate
from tests.sim.daemons import AgentLife, Disk, ManagerLife, SkewedClock
from tests.sim.dice import Dice
from tests.sim.engine import Swarm
from tests.sim.engine_line import Service
from tests.sim.host import SimHost
from tests.sim.leads import CandidateLife, Lead
from tests.sim.link import Air
from tests.sim.nemesis import Nemesis
from tests.sim.operators import Operators
from tests.sim.process import Crash, Process
from tests.sim.trace import Trace
from tests.sim.users import People

QUIET_S: Final = 600.0
"""How long everything that ends by itself may take once nothing breaks any more."""

ENDED_S: Final = 2_400.0
"""And how long it may take to end all that was told to: the longest deadline is 1800 s."""

JUDGED_S: Final = 70.0
"""Two listings of an agent, which finds strays."""


class World:
    """Everything that exists. It is the `Fate` of all processes."""

    def __init__(self, seed: int, trace: Trace, tasks: asyncio.TaskGroup) -> None:
        self.seed = seed
        self.trace = trace
        self.climate: Climate = climate(seed)
        self.dice = Dice(seed, "world")
        self.tasks = tasks
        self.troubled = False
        self.seats: list[ManagerLife | None] = [None] * self.climate.managers
        self.managers = 0
        self._speaks: ManagerLife | None = None
        self.agents: dict[AgentId, AgentLife | None] = {}
        self.crashes: list[str] = []
        self._passed: dict[tuple[str, str], int] = {}
        self._pending_crashes = set(self.climate.crashes)
        self.database = _fresh_database()
        self.disk = Disk(0.0, Dice(seed, "manager's disk"))
        self.air = Air(self.climate, seed)
        ids = itertools.count(1)
        self.swarms = {name: Swarm(ids) for name in (DEFAULT, SIDE)}
        self.hosts: dict[AgentId, SimHost] = {}
        self.auditor = Auditor(
            self.database, self.hosts, trace.note, self._silence_s, self.climate.lost_after_s
        )
        self.lead = Lead(self.auditor.demand)
        self.services: list[Service] = []
        for number, gpus in enumerate(self.climate.gpus):
            self._build_host(AgentId(f"host{number}"), gpus)
        self.people = People(
            self.climate,
            Dice(seed, "people"),
            Dice(seed, "the rest of the people"),
            Dice(seed, "people of clusters"),
            lambda: self.manager,
            self.auditor,
            trace.note,
        )

    def _build_host(self, name: AgentId, gpus: int) -> None:
        host = SimHost(
            name, gpus, self.climate, self.swarms[self._cluster(name)], self.auditor, self.seed
        )
        host.reachable = self._reachable
        host.released = self.auditor.released
        host.signalled = self.auditor.signalled
        self.hosts[name] = host
        self.services.append(Service(host.engine, self.climate, host.dice, self.tasks))

    def _cluster(self, host: AgentId) -> ClusterName:
        return SIDE if host in self.climate.retired else DEFAULT

    # ---------------------------------------------------------------- processes come and go

    def strikes(self, process: Process, point: str) -> bool:
        """Count a point, and tell whether it kills."""
        if not self.troubled:
            return False
        if isinstance(process, AgentLife) and point in process.host.doomed:
            process.host.doomed.remove(point)
            return self._dies(process, point)
        place = (process.role, point)
        self._passed[place] = count = self._passed.get(place, 0) + 1
        if (*place, count) not in self._pending_crashes:
            return False
        self._pending_crashes.discard((*place, count))
        return self._dies(process, point)

    def _dies(self, process: Process, point: str) -> bool:
        self.crashes.append(f"{process.role} {point}")
        self.trace.note(process.name, f"dies at {point}")
        return True

    def died(self, process: Process) -> None:
        """Let the process begin anew after a while."""
        self.trace.note(process.name, "is dead")
        after_s = self.dice.skewed(0.2, 15.0)
        loop = asyncio.get_running_loop()
        if isinstance(process, ManagerLife):
            seat = self.seats.index(process)
            self.seats[seat] = None
            if process.office is not None:
                loop.call_soon(self._left_by, process)
                self.air.manager_died(process.office)
            loop.call_later(after_s, self.begin_manager, seat)
        elif isinstance(process, AgentLife):
            host = process.host
            self.agents[host.name] = None
            for kernel, door in list(host.doors.items()):
                door.close()
                host.doors.pop(kernel, None)
            self.air.agent_died(host.name, silently=False)
            loop.call_later(after_s, self.begin_agent, host.name)

    def _left_by(self, manager: ManagerLife) -> None:
        """Judge what it has committed and told nobody by what it knew; not sooner, since what it
        has not committed is to be seen until its last step is over.
        """
        self._speaks = manager
        self.auditor.look()

    def failed(self, process: Process, error: BaseException) -> None:
        """A process has ended by itself: its supervisors should not have let it."""
        text = "".join(traceback.format_exception(error))
        self.auditor.demand(False, f"{process.name} ended by itself: {text}")

    @property
    def manager(self) -> ManagerLife | None:
        """The one that leads; where several think so any of them."""
        leading = [one for one in self.seats if one is not None and one.office is not None]
        if len(leading) > 1:
            return self.dice.pick(leading)
        return leading[0] if leading else None

    def begin_manager(self, seat: int) -> None:
        """Start a manager."""
        if self.seats[seat] is not None:
            return
        self.managers += 1
        durable = (self.database, self.disk)

        def changed(session: SessionId) -> None:
            self._speaks = life
            self.auditor.changed(session)

        life: ManagerLife
        if len(self.seats) == 1:
            life = ManagerLife(self.managers, self, self.climate, durable, changed)
        else:
            shared = (self.lead, self.air)
            life = CandidateLife(self.managers, self, self.climate, durable, changed, shared)
        self.seats[seat] = life
        self.trace.note(life.name, "begins")
        try:
            office = life.open()
        except Crash:
            return
        except Unavailable as error:  # its supervisor starts it again
            self.trace.note(life.name, f"cannot begin: {error}")
            life.kill()
            return
        if office is not None:
            self.air.offices.append(office)
        life.begin(self.tasks)

    def begin_agent(self, name: AgentId) -> None:
        """Start an agent; while its machine restarts there is nothing to start it."""
        if self.agents.get(name) is not None or self.hosts[name].dismissed:
            return
        number = list(self.hosts).index(name)
        life = AgentLife(self.hosts[name], self.services[number], self.air, self)
        self.trace.note(life.name, "begins")
        self.agents[name] = life
        life.begin(self.tasks)

    def _silence_s(self, agent: AgentId) -> float:
        office = self._speaks.office if self._speaks is not None else None
        now = asyncio.get_running_loop().time()
        return now - (office.heard_s.get(agent, office.began_s) if office is not None else now)

    def heal(self) -> None:
        """Let nothing break from now on."""
        self.trace.note("world", "heals")
        self.troubled = False
        self.disk.fault = 0.0
        self.lead.cut.clear()
        self.lead.late.clear()
        self.air.heal()
        for service in self.services:
            service.troubled = False
        for host in self.hosts.values():
            host.disk_fault = host.luck = 0.0
            host.engine.poisoned = False

    # ---------------------------------------------------------------- what runners ask

    def _reachable(self, kernel: KernelId) -> bool:
        """All peers listen, and this one trusts the keys that they have."""
        session, attempt, _ = split_kernel_id(kernel)
        peers = [
            (host, runner)
            for host in self.hosts.values()
            for runner in host.runners.values()
            if split_kernel_id(runner.kernel)[:2] == (session, attempt)
        ]
        if len(peers) != self.auditor.gang_size(kernel) or not all(r.ready for _, r in peers):
            return False
        own = next(host for host, runner in peers if runner.kernel == kernel)
        known = own.files.scratch.texts.get(kernel, {}).get("ssh/known_hosts", "")
        for host, runner in peers:
            keys = host.files.keys.get(runner.kernel)
            trusted = keys is not None and keys.host in known
            self.auditor.demand(trusted, f"{kernel} does not trust {runner.kernel} with {keys}")
        self.auditor.seen.meshed.add(kernel)
        return True

    # ---------------------------------------------------------------- the whole story

    async def live(self) -> None:
        """Storm, peace, the end of all sessions, silence."""
        await self._found()
        nemesis = Nemesis(
            self.climate,
            Dice(self.seed, "nemesis"),
            self.air,
            list(self.hosts.values()),
            lambda: self.manager,
            lambda host: self.agents.get(host.name),
            self.lead,
            self.trace.note,
        )
        async with asyncio.TaskGroup() as storm:
            storm.create_task(self.people.live())
            storm.create_task(nemesis.live())
            storm.create_task(self._operators().live())
            await asyncio.sleep(self.climate.storm_s)
            self.heal()
        await self._until(QUIET_S, self._quiet)
        if not self.auditor.violations:
            await self._explained()
            waiting = {name for name, _, done in self._states() if not done}
            for wish in self.people.wishes:
                if wish.accepted in waiting:
                    await self.people.stop(wish, None)
            await self._until(ENDED_S, self._ended)
            await asyncio.sleep(JUDGED_S)
            self._judge()

    def _operators(self) -> Operators:
        return Operators(
            self.climate,
            self.seed,
            Dice(self.seed, "operators"),
            tuple(self.hosts),
            lambda: self.manager,
            self.agents.get,
            lambda host: self.hosts[host].doomed,
            self.auditor,
            self.trace.note,
        )

    def end(self) -> None:
        """Let everything that still runs go, unheard."""
        for process in (*self.seats, *self.agents.values()):
            if process is not None:
                process.alive = False
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _found(self) -> None:
        """Begin the manager, let the agents join, begin them."""
        for seat in range(len(self.seats)):
            self.begin_manager(seat)
        await self._until(QUIET_S, lambda: self.manager is not None)
        assert self.manager is not None
        store, now = self.manager.store, SkewedClock(0.0).now()
        if self.climate.retires:
            assert await store.add_cluster(Cluster(SIDE, now, "ada"), reuse=False) is None
        for name in self.hosts:
            key, cluster = f"token {name}", self._cluster(name)
            token = TokenRow(name, "agent", "", "user", cluster, now, None, public_key=key)
            await store.add_token(token)
            assert isinstance(await store.use_agent_token(key, name, name, now), Joined)
        self.troubled, self.disk.fault = True, self.climate.disk_fault
        for name in self.hosts:
            self.begin_agent(name)

    async def _until(self, within_s: float, true: Callable[[], bool]) -> None:
        """Wait until something is so, a violation is found, or the time is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while loop.time() < end and not self.auditor.violations and not self.trace.bugs:
            if true():
                return
            await asyncio.sleep(1.0)

    def _states(self) -> list[tuple[str, str, int]]:
        query = "SELECT id, state, done FROM session ORDER BY id"
        return list(self.database.execute(query))

    def _quiet(self) -> bool:
        """Everything has ended but what waits for its user, or for a place."""
        wait = {"pending", "running"}
        there = self.manager is not None and None not in self.agents.values()
        return there and all(state in wait or done for _, state, done in self._states())

    def _ended(self) -> bool:
        return all(done for _, _, done in self._states())

    async def _explained(self) -> None:
        """Who still waits is told why."""
        assert self.manager is not None
        for row in (await self.manager.store.load()).sessions.values():
            told = row.session.state != "pending" or session_reason(row)
            self.auditor.demand(bool(told), f"session {row.session.id} waits, nobody says why")
        self.auditor.promised.waiting()

    def _judge(self) -> None:
        accepted = [wish.accepted for wish in self.people.wishes if wish.accepted is not None]
        self.auditor.all_is_over(accepted)
        if self.climate.retires:
            retired = [self.hosts[name] for name in self.climate.retired]
            self.auditor.promised.retired(SIDE, retired)
        for agent in self.agents.values():
            if agent is not None:
                board = agent.board.observed()
                self.auditor.demand(not board.kernels, f"{agent.name} still tells of kernels")
                self.auditor.demand(not board.networks, f"{agent.name} still tells of networks")
                self.auditor.demand(not board.strays, f"{agent.name} has strays: {board.strays}")
        manager = self.manager
        self.auditor.demand(manager is not None, "there is no manager at the end")
        if self.climate.calm:
            self._as_their_commands()

    def _as_their_commands(self) -> None:
        """Where nothing went wrong, a session ends as its command did."""
        query = (
            "SELECT state, exit_code FROM session "
            "WHERE id = ? AND coalesce(stop_cause, '') NOT IN ('drain', 'dependency')"
        )
        for wish in self.people.wishes:
            if wish.accepted is None or wish.expected is None or wish.stopped:
                continue
            if wish.spec.cluster == SIDE:
                continue  # it ends with its cluster, or before
            found = self.database.execute(query, (wish.accepted,)).fetchone()
            if found is None:
                continue  # its host was drained, or its turn could never come
            wanted = ("failed" if wish.expected else "succeeded", wish.expected)
            self.auditor.demand(found == wanted, f"{wish.key} ended as {found}, not {wanted}")


@cache
def _schema() -> bytes:
    made = Database.open(MEMORY)
    data = made._connection.serialize()
    made.close()
    return data


def _fresh_database() -> sqlite3.Connection:
    connection = sqlite3.connect(MEMORY, isolation_level=None)
    connection.deserialize(_schema())
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
