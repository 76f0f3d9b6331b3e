"""The checkers: they see what really happens on the hosts and what the database says of it."""

# ruff: noqa: ARG002 - a double takes what its port takes
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from sqlite3 import Connection as SqliteConnection
from typing import Final

from phalanx_agent.core.recipe import RUNNER_PIDS, ContainerRecipe
from phalanx_agent.docker.port import ContainerFacts, NetworkFacts
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.ids import AgentId, KernelId, SessionId, split_kernel_id
from phalanx_wire.lifecycle import ENDED, KernelState
from phalanx_wire.slots import Slots
from tests.sim.host import SimHost
from tests.sim.promised import Promised

DRAIN_SIGNAL: Final = 10
"""The one that operators send; users choose another."""

_COLUMNS: Final = (
    "id, state, agent, ended_as, exit_code, cause, cpu_milli, mem_bytes, gpu, pids, gpus"
)


@dataclass(frozen=True)
class KernelLine:
    """A kernel as the database has it."""

    id: KernelId
    state: KernelState
    agent: AgentId | None
    ended_as: int | None
    exit_code: int | None
    cause: str
    slots: Slots
    gpus: tuple[str, ...]


@dataclass
class Seen:
    """What the hosts have shown so far.

    Attributes:
        starts: how often each kernel's first process was started.
        running: where a first process runs now.
        exits: what the engine says of ends.
        meshed: kernels whose runner has reached its peers.
        released: kernels whose command was started.
        meddled: kernels whose container somebody has removed by hand.
    """

    created: set[KernelId] = field(default_factory=set)
    starts: dict[KernelId, int] = field(default_factory=dict)
    running: dict[KernelId, AgentId] = field(default_factory=dict)
    exits: dict[KernelId, int] = field(default_factory=dict)
    meshed: set[KernelId] = field(default_factory=set)
    released: set[KernelId] = field(default_factory=set)
    meddled: set[KernelId] = field(default_factory=set)


class Auditor:
    """Notes each broken promise in `violations`; nothing is told to those who are watched."""

    def __init__(
        self,
        database: SqliteConnection,
        hosts: Mapping[AgentId, SimHost],
        note: Callable[[str, str], None],
        silence_s: Callable[[AgentId], float],
        lost_after_s: float,
    ) -> None:
        """Args: silence_s: for how long the living manager has not heard an agent."""
        self.violations: list[str] = []
        self.seen = Seen()
        self.promised = Promised(database, self.demand)
        self._database = database
        self._hosts = hosts
        self._note = note
        self._silence_s = silence_s
        self._lost_after_s = lost_after_s
        self._kernels: dict[KernelId, KernelLine] = {}
        self._ended: dict[SessionId, tuple[str, int | None]] = {}
        self._gone_networks: set[str] = set()

    def demand(self, holds: bool, broken: str) -> None:  # noqa: FBT001 - as an assertion's
        """Note a broken promise."""
        if not holds:
            self._note("VIOLATION", broken)
            self.violations.append(broken)

    # ---------------------------------------------------------------- the hosts

    def created(self, host: AgentId, facts: ContainerFacts, recipe: ContainerRecipe) -> None:
        self._note(host, f"container created {facts.kernel}")
        self.seen.created.add(facts.kernel)

    def started(self, host: AgentId, facts: ContainerFacts, recipe: ContainerRecipe) -> None:
        kernel = facts.kernel
        self._note(host, f"container started {kernel}")
        seen = self.seen
        seen.starts[kernel] = seen.starts.get(kernel, 0) + 1
        self.demand(seen.starts[kernel] == 1, f"kernel {kernel} was started more than once")
        session, _, rank = split_kernel_id(kernel)
        for other in seen.running:
            same = split_kernel_id(other)
            twice = same[0] == session and same[2] == rank
            self.demand(not twice, f"{kernel} starts while {other} of its rank still runs")
        seen.running[kernel] = host
        missing = [one for one in self._gang(kernel) if one not in seen.created]
        self.demand(not missing, f"{kernel} starts before {missing} of its gang are created")
        self._crowded(host)
        self._clashing(host, kernel)

    def ended(self, host: AgentId, facts: ContainerFacts) -> None:
        self._note(host, f"container ended {facts.kernel} with {facts.exit_code}")
        self.seen.running.pop(facts.kernel, None)
        self.seen.exits[facts.kernel] = facts.exit_code

    def died(self, facts: ContainerFacts) -> None:
        """A container's processes are gone with their host; nobody knows its code yet."""
        self.seen.running.pop(facts.kernel, None)

    def removed(self, host: AgentId, facts: ContainerFacts) -> None:
        self._note(host, f"container removed {facts.kernel}")
        if facts.kernel in self.seen.released:
            line = self._read(facts.kernel)
            stored = line is not None and line.state in ENDED
            self.demand(stored, f"{facts.kernel} is removed before its outcome is stored")

    def meddled(self, host: AgentId, facts: ContainerFacts) -> None:
        self._note(host, f"container removed by hand {facts.kernel}")
        self.seen.meddled.add(facts.kernel)

    def released(self, kernel: KernelId) -> None:
        """A runner starts the user's command."""
        self._note("hosts", f"command released {kernel}")
        self.seen.released.add(kernel)
        gang = self._gang(kernel)
        behind = [one for one in gang if one not in self.seen.meshed] if len(gang) > 1 else []
        self.demand(not behind, f"{kernel} runs before {behind} have reached their peers")

    def signalled(self, kernel: KernelId, number: int) -> None:
        """A command hears a signal."""
        self._note("hosts", f"signal {number} heard {kernel}")
        self.promised.signalled(kernel, number, by_drain=number == DRAIN_SIGNAL)

    def network_made(self, host: AgentId, facts: NetworkFacts) -> None:
        self._note(host, f"network made {facts.name}")
        own = IPv4Network(facts.subnet)
        for other in self._networks():
            clash = other.id != facts.id and own.overlaps(IPv4Network(other.subnet))
            self.demand(not clash, f"networks {facts.name} and {other.name} overlap")

    def swarm_made(self, host: AgentId) -> None:
        self._note(host, "swarm made")
        engines = self._hosts[host].engine.shared.engines
        names = {engine.swarm_report.swarm_id for engine in engines} - {""}
        self.demand(len(names) == 1, f"there are two swarms: {sorted(names)}")

    def swarm_left(self, host: AgentId, *, heard: bool) -> None:
        self._note(host, "swarm left")
        self.promised.left_swarm(host, heard=heard)

    def _networks(self) -> Iterable[NetworkFacts]:
        for host in self._hosts.values():
            yield from host.engine.networks.values()
        for swarm in dict.fromkeys(host.engine.shared for host in self._hosts.values()):
            yield from swarm.networks.values()

    def _crowded(self, name: AgentId) -> None:
        """Add up what runs on a host."""
        engine = self._hosts[name].engine
        total, holders = Slots(), dict[str, SessionId]()
        for facts in engine.containers.values():
            if facts.status != "running":
                continue
            recipe = engine.recipes[facts.id]
            total += Slots(recipe.cpu_milli, recipe.mem_bytes, 0, recipe.pids - RUNNER_PIDS)
            for gpu in recipe.gpus:
                holder = holders.setdefault(gpu, facts.session)
                self.demand(holder == facts.session, f"{gpu} is used by {holder}, {facts.session}")
        capacity = self._hosts[name].capacity
        self.demand(total.fits(capacity), f"{name} runs {total}, more than its {capacity}")

    def _clashing(self, name: AgentId, kernel: KernelId) -> None:
        """Look for two that were given one port of their host's network."""
        own = self._ports(kernel)
        for other, where in self.seen.running.items():
            both = own & self._ports(other) if where == name and other != kernel else own - own
            self.demand(not both, f"{kernel} and {other} share ports {sorted(both)} of {name}")

    def _ports(self, kernel: KernelId) -> frozenset[int]:
        query = "SELECT ssh_port, service_port FROM kernel WHERE id = ?"
        ((ssh, service),) = self._database.execute(query, (kernel,))
        return frozenset({ssh, service}) - {0}

    def hearers(self, host: AgentId) -> frozenset[KernelId]:
        """Find the kernels on a host whose command takes signals, as the database has it."""
        query = (
            "SELECT kernel.id, rank, spec FROM kernel JOIN session ON session.id = session "
            "WHERE agent = ? AND kernel.state = ? AND stop_cause IS NULL"
        )
        found = self._database.execute(query, (host, int(KernelState.RUNNING))).fetchall()
        specs = [(kernel, rank, json.loads(spec)) for kernel, rank, spec in found]
        return frozenset(
            kernel
            for kernel, rank, spec in specs
            if spec["kind"] == "batch" and (rank == 0 or spec.get("run_on") != "main")
        )

    # ---------------------------------------------------------------- the database

    def changed(self, session: SessionId) -> None:
        """A commit has changed a session."""
        if not session:
            return
        for line in self._lines(session):
            before = self._kernels.get(line.id)
            self._kernels[line.id] = line
            if before is None or before.state is not line.state:
                self._moved(before, line)
            if before is not None and before.ended_as is not None:
                same = (before.ended_as, before.exit_code) == (line.ended_as, line.exit_code)
                learnt = before.cause == "lost" and line.exit_code == self.seen.exits.get(line.id)
                broken = f"the outcome of {line.id} was changed: {before} to {line}"
                self.demand(same or learnt, broken)
        self._sessions(session)
        self.promised.stopped(session)
        self.promised.patient(session)
        self._booked()

    def look(self) -> None:
        """Judge all that was committed, whether somebody has told of it or not."""
        for (session,) in self._database.execute("SELECT id FROM session").fetchall():
            self.changed(SessionId(session))

    def _moved(self, before: KernelLine | None, line: KernelLine) -> None:
        forward = before is None or before.state < line.state
        self.demand(forward, f"{line.id} went back to {line.state.name}")
        if line.agent is not None and (before is None or before.agent is None):
            self.promised.placed(line.id, split_kernel_id(line.id)[0], line.agent)
        if line.state is KernelState.LOST and line.agent is not None:
            silent_s = self._silence_s(line.agent)
            host = self._hosts[line.agent]
            left = host.files.left and line.id not in self.seen.created  # and never will be
            long = silent_s > self._lost_after_s - 0.1
            self.demand(left or long, f"{line.id} is given up after {silent_s:.1f} s of silence")
            on = line.id in self.seen.running
            self.demand(not on, f"{line.id} is given up, and runs on {line.agent}")
        if line.state in ENDED and line.state is not KernelState.LOST:
            lost = line.ended_as == KernelState.LOST
            ran_on = line.id in self.seen.running
            self.demand(not ran_on, f"{line.id} is {line.state.name}, and still runs")
            if not lost and (before is None or before.state not in ENDED):
                self._exit_is_true(line)
        if line.state is KernelState.REMOVED and line.agent is not None:
            self.demand(not self._left(line), f"{line.id} is REMOVED, and there is {line}")

    def _exit_is_true(self, line: KernelLine) -> None:
        """What the engine said is what is stored; of a runner without a command, if anything."""
        code = self.seen.exits.get(line.id)
        told = code == line.exit_code
        knowable = line.id in self.seen.released and line.id not in self.seen.meddled
        unsaid = not knowable and line.exit_code is None
        self.demand(told or unsaid, f"{line.id} ended with {code}; stored is {line}")

    def _left(self, line: KernelLine) -> bool:
        assert line.agent is not None
        host = self._hosts[line.agent]
        here = any(facts.kernel == line.id for facts in host.engine.containers.values())
        return here or line.id in host.files.scratch.kernels()

    def _sessions(self, session: SessionId) -> None:
        query = "SELECT state, exit_code FROM session WHERE id = ?"
        for state, code in self._database.execute(query, (session,)):
            before = self._ended.get(session)
            if before is not None:
                same = before == (state, code)
                self.demand(same, f"session {session} had ended as {before}, now {state} {code}")
            elif state in ENDED_STATES:
                self._ended[session] = (state, code)
        query = "SELECT name FROM network WHERE session = ? AND released = 1"
        for (name,) in self._database.execute(query, (session,)):
            if name not in self._gone_networks:
                self._gone_networks.add(name)
                there = any(facts.name == name for facts in self._networks())
                self.demand(not there, f"the subnet of network {name} is free, and it still is")

    def _booked(self) -> None:
        """Add up what the database has given away on each host."""
        query = (
            "SELECT agent, sum(cpu_milli), sum(mem_bytes), sum(gpu), sum(pids) FROM kernel "
            "WHERE agent IS NOT NULL AND state <> ? GROUP BY agent"
        )
        for agent, *amounts in self._database.execute(query, (int(KernelState.REMOVED),)):
            capacity = self._hosts[agent].capacity
            self.demand(Slots(*amounts).fits(capacity), f"{agent} is oversold: {amounts}")

    # ---------------------------------------------------------------- reading

    def gang_size(self, kernel: KernelId) -> int:
        """Tell how many kernels an attempt has."""
        return len(self._gang(kernel))

    def _gang(self, kernel: KernelId) -> list[KernelId]:
        session, attempt, _ = split_kernel_id(kernel)
        query = "SELECT id FROM kernel WHERE session = ? AND attempt = ? ORDER BY rank"
        return [KernelId(row[0]) for row in self._database.execute(query, (session, attempt))]

    def _read(self, kernel: KernelId) -> KernelLine | None:
        session, _, _ = split_kernel_id(kernel)
        return next((line for line in self._lines(session) if line.id == kernel), None)

    def _lines(self, session: SessionId) -> list[KernelLine]:
        query = f"SELECT {_COLUMNS} FROM kernel WHERE session = ? ORDER BY attempt, rank"  # noqa: S608 - constant
        return [
            KernelLine(
                KernelId(row[0]),
                KernelState(row[1]),
                AgentId(row[2]) if row[2] is not None else None,
                row[3],
                row[4],
                row[5],
                Slots(*row[6:10]),
                tuple(json.loads(row[10])),
            )
            for row in self._database.execute(query, (session,))
        ]

    # ---------------------------------------------------------------- the end

    def all_is_over(self, accepted: Iterable[SessionId]) -> None:
        """Judge a cluster that was left in peace until nothing moved any more."""
        for session in accepted:
            found = self._database.execute(
                "SELECT state, done FROM session WHERE id = ?", (session,)
            ).fetchone()
            self.demand(found is not None, f"session {session} was accepted and is forgotten")
            if found is not None:
                self.demand(found[0] in ENDED_STATES, f"session {session} never ended: {found[0]}")
                self.demand(found[1] == 1, f"session {session} still holds something")
            for line in self._lines(session):
                if line.id in self.seen.starts:
                    self.demand(line.ended_as is not None, f"the exit of {line.id} was lost")
        for table in ("gpu_hold", "port_hold", "network"):
            left = self._database.execute(f"SELECT * FROM {table} WHERE released = 0").fetchall()  # noqa: S608 - constant
            self.demand(not left, f"{table} still has {left}")
        for name, host in self._hosts.items():
            containers = [facts.name for facts in host.engine.containers.values()]
            self.demand(not containers, f"{name} still has containers {containers}")
            files = sorted(host.files.scratch.kernels())
            self.demand(not files, f"{name} still has files of {files}")
        networks = sorted(facts.name for facts in self._networks())
        self.demand(not networks, f"there are still networks {networks}")
