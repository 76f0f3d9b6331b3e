"""What each agent shall have: computed from the database, never stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from phalanx_manager.core.cluster_env import Environments, service_port
from phalanx_manager.core.model import Drain, Kernel, NetworkRow, Session, SessionRow, Snapshot
from phalanx_manager.core.notice import owed
from phalanx_manager.core.session import idles, lost_after_s
from phalanx_wire import names
from phalanx_wire.control import (
    Assignment,
    Gang,
    Goals,
    Member,
    Network,
    NetworkGoal,
    SwarmGoal,
)
from phalanx_wire.ids import AgentId, KernelId, SessionId
from phalanx_wire.lifecycle import BARRIERS, KernelState
from phalanx_wire.notice import Notice
from phalanx_wire.spec import RoleSpec

_TOGETHER: Final = frozenset({"default"})
"""Profiles under which a container sees the devices of all the session's on its host."""

_NO_DRAINS: Final[Mapping[AgentId, Drain]] = {}

LONGEST_WAIT_S: Final = 5.0
"""Between the moment that a stop is settled and that of it, for who asked for it to hear of it."""


@dataclass(frozen=True, slots=True)
class Reached:
    """By which addresses hosts are reached.

    Attributes:
        hosts: by others of their swarm.
        guarded: of all hosts, and the manager's; containers must not.
    """

    hosts: Mapping[AgentId, str] = field(default_factory=dict)
    guarded: frozenset[str] = frozenset()

    @classmethod
    def of(cls, snapshot: Snapshot, own: Collection[str]) -> Reached:
        """Collect what agents have reported, and the manager's own."""
        seen = {
            name: record.observed
            for name, record in snapshot.agents.items()
            if record.observed is not None
        }
        hosts = {name: one.swarm.address or one.address for name, one in seen.items()}
        every = {each for one in seen.values() for each in (one.address, *one.addresses) if each}
        return cls(hosts, frozenset(own) | every)


class Memo:
    """Remembers what is dear to spell and the same for many agents or many turns."""

    def __init__(self) -> None:
        self._envs: dict[KernelId, dict[str, str]] = {}
        self._all: dict[tuple[SessionId, int], Environments] = {}
        self._gangs: dict[tuple[SessionId, int], tuple[SessionRow, Gang]] = {}

    def env(self, row: SessionRow, kernel: Kernel) -> dict[str, str]:
        """Spell a kernel's environment; it never changes once placed."""
        known = self._envs.get(kernel.id)
        if known is None:
            attempt = (row.session.id, row.session.attempt)
            ranks = self._all.get(attempt)
            if ranks is None:
                ranks = self._all[attempt] = Environments(row.session, row.kernels)
            known = {var.name: var.value for var in ranks.of(kernel.rank)}
            self._envs[kernel.id] = known
        return known

    def gang(self, row: SessionRow, network: NetworkRow, hosts: Mapping[AgentId, str]) -> Gang:
        """Spell a gang, once for all its agents."""
        attempt = (row.session.id, row.session.attempt)
        known = self._gangs.get(attempt)
        if known is None or known[0] is not row:
            known = self._gangs[attempt] = (row, _gang(row, network, hosts))
        return known[1]

    def forget_all_but(self, rows: Iterable[SessionRow]) -> None:
        """Drop what is remembered of attempts that are gone."""
        kept = list(rows)
        kernels = {kernel.id for row in kept for kernel in row.kernels}
        for kernel in self._envs.keys() - kernels:
            del self._envs[kernel]
        attempts = {(row.session.id, row.session.attempt) for row in kept}
        for attempt in self._gangs.keys() - attempts:
            del self._gangs[attempt]
        for attempt in self._all.keys() - attempts:
            del self._all[attempt]

    def __len__(self) -> int:
        return len(self._envs) + len(self._all) + len(self._gangs)


def for_agent(
    rows: Iterable[SessionRow],
    agent: AgentId,
    swarm: SwarmGoal | None,
    reached: Reached,
    memo: Memo | None = None,
    drained: Mapping[AgentId, Drain] = _NO_DRAINS,
) -> Goals:
    """Spell all that an agent shall have, out of the sessions that concern it (others do no
    harm); the revision is left 0 for whoever sends it. `drained` are `notice.drains`.
    """
    memo = Memo() if memo is None else memo
    gangs: list[Gang] = []
    kernels: list[Assignment] = []
    networks: list[NetworkGoal] = []
    for row in rows:
        network = row.session.network
        if network is None:
            continue
        own = [kernel for kernel in row.kernels if kernel.agent == agent and kernel.holds]
        if own:
            gangs.append(memo.gang(row, network, reached.hosts))
            wanted = barrier(row)
            kernels.extend(
                assignment(row, k, memo.env(row, k), wanted, owed(row, k, drained)) for k in own
            )
        if network.owner == agent and not network.released:
            networks.append(
                NetworkGoal(
                    session=row.session.id,
                    attempt=row.session.attempt,
                    network=_network(network),
                    present=network_wanted(row.kernels),
                )
            )
    return Goals(
        revision=0,
        gangs=tuple(gangs),
        kernels=tuple(kernels),
        networks=tuple(networks),
        swarm=swarm,
        guarded=tuple(sorted(reached.guarded)),
    )


def timely(snapshot: Snapshot, now: datetime) -> tuple[Snapshot, Mapping[SessionId, float]]:
    """Take out the stops whose moment has not come, and say in how many seconds it will. One that
    lies far ahead was set before the clock was: it is due.
    """
    due_s = {
        name: (row.session.stop.at - now).total_seconds()
        for name, row in snapshot.sessions.items()
        if row.session.stop is not None
    }
    waiting = {name: left_s for name, left_s in due_s.items() if 0 < left_s <= LONGEST_WAIT_S}
    if not waiting:
        return snapshot, waiting
    sessions = dict(snapshot.sessions)
    for name in waiting:
        row = sessions[name]
        sessions[name] = replace(row, session=replace(row.session, stop=None))
    return replace(snapshot, sessions=sessions), waiting


def network_wanted(kernels: Sequence[Kernel]) -> bool:
    """Tell whether somebody may still be attached; a lost kernel's agent cannot be asked."""
    return any(kernel.holds and kernel.state is not KernelState.LOST for kernel in kernels)


def barrier(row: SessionRow) -> KernelState:
    """Say how far a gang may go now: to the first barrier that its slowest has not reached, and
    past the last one only once it was whole (`session.settle` keeps that moment), since of who
    has ended nobody can tell how far it had come.
    """
    if len(row.kernels) == 1 or row.session.started_at is not None:
        return KernelState.RUNNING
    slowest = min(kernel.state for kernel in row.kernels)
    return next((state for state in BARRIERS[:-1] if state > slowest), BARRIERS[-2])


def goal(row: SessionRow, kernel: Kernel, wanted: KernelState) -> KernelState:
    """Say what one kernel shall be: gone, stopped, or at its gang's `barrier`."""
    if kernel.ended:
        stays = row.session.kept_until is not None or _keeps_devices(row, kernel)
        return KernelState.STOPPED if stays else KernelState.REMOVED
    return wanted if row.session.stop is None else KernelState.STOPPED


def assignment(
    row: SessionRow,
    kernel: Kernel,
    env: dict[str, str],
    wanted: KernelState,
    notices: tuple[Notice, ...] = (),
) -> Assignment:
    """Spell one kernel's order; `wanted` is its gang's `barrier`."""
    session = row.session
    spec = session.spec
    role = _role(session, kernel)
    grace_s = session.stop.grace_s if session.stop is not None else None
    idle = idles(session, kernel.rank)
    serves = kernel.rank == 0 and len(row.kernels) > 1
    master_port = service_port(session, kernel) if serves else None
    return Assignment(
        kernel=kernel.id,
        goal=goal(row, kernel, wanted),
        host_name=kernel.host_name,
        image=role.image or "",
        command=() if idle else role.command or (),
        idle=idle,
        env=env,
        workdir=role.workdir or "",
        user=role.user or "",
        mounts=role.mounts or (),
        slots=kernel.slots,
        shm_bytes=kernel.shm_bytes,
        gpus=visible_gpus(row, kernel),
        upload=spec.upload or "",
        grace_s=spec.grace_s if grace_s is None else grace_s,
        lost_after_s=lost_after_s(session),
        master_port=master_port or 0,
        ports=(kernel.ssh_port, kernel.service_port) if kernel.ssh_port else (),
        notices=notices,
        begun=session.started_at is not None,
    )


def visible_gpus(row: SessionRow, kernel: Kernel) -> tuple[str, ...]:
    """List the devices that a container sees: under `default` those of all on its host."""
    if not kernel.gpus or row.session.spec.env_profile not in _TOGETHER:
        return kernel.gpus
    return tuple(gpu for other in row.kernels if other.agent == kernel.agent for gpu in other.gpus)


def by_agent(snapshot: Snapshot) -> Mapping[AgentId, Sequence[SessionRow]]:
    """Sort the sessions by the agents that they concern: seats, and the owner of the network."""
    sorted_rows: dict[AgentId, list[SessionRow]] = {}
    for row in snapshot.rows():
        for agent in agents_of(row):
            sorted_rows.setdefault(agent, []).append(row)
    return sorted_rows


def agents_of(row: SessionRow) -> frozenset[AgentId]:
    """Find whose goals depend on a session."""
    network = row.session.network
    if network is None:
        return frozenset()
    return frozenset({network.owner, *(k.agent for k in row.kernels if k.agent is not None)})


def _keeps_devices(row: SessionRow, kernel: Kernel) -> bool:
    """An ended kernel's devices stay its own while a neighbour's container still sees them."""
    return (
        bool(kernel.gpus)
        and row.session.spec.env_profile in _TOGETHER
        and any(other.agent == kernel.agent and not other.ended for other in row.kernels)
    )


def _gang(row: SessionRow, network: NetworkRow, hosts: Mapping[AgentId, str]) -> Gang:
    session = row.session
    seats = {kernel.agent for kernel in row.kernels} if network.driver == "overlay" else set()
    # Keys travel once all are made, so that a preparing gang is told once and not once per key.
    complete = all(kernel.state >= KernelState.CREATED for kernel in row.kernels)
    return Gang(
        session=session.id,
        session_name=session.name,
        attempt=session.attempt,
        network=_network(network),
        egress=session.spec.egress and network.driver != "host",
        members=tuple(
            Member(
                rank=kernel.rank,
                host_name=kernel.host_name,
                agent=kernel.agent or AgentId(""),
                address=kernel.address,
                host_key=kernel.host_key if complete else "",
                user_key=kernel.user_key if complete else "",
                slots=max(1, kernel.slots.gpu),
                ssh_port=kernel.ssh_port or names.SSH_PORT,
            )
            for kernel in row.kernels
        ),
        hosts={agent: hosts[agent] for agent in sorted(filter(None, seats)) if hosts.get(agent)},
    )


def _network(row: NetworkRow) -> Network:
    return Network(row.name, row.driver, row.subnet, row.owner, row.engine_id)


def _role(session: Session, kernel: Kernel) -> RoleSpec:
    for role in session.spec.roles or ():
        if role.name == kernel.role:
            return role
    return RoleSpec(name=kernel.role, image=session.spec.image)
