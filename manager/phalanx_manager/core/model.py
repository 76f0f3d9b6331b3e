"""The nouns of the manager: what its database holds, as values."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from phalanx_wire.api import SessionState
from phalanx_wire.control import HostNetwork, Observed
from phalanx_wire.ids import AgentId, ClusterName, KernelId, SessionId
from phalanx_wire.lifecycle import ENDED, KernelState
from phalanx_wire.slots import Slots
from phalanx_wire.spec import SessionSpec

Scope = Literal["admin", "user", "read-only"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, by the token."""

    user: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class Refusal:
    """The request is wrong or not allowed; the fields are those of `api.Problem`.

    Attributes:
        status: HTTP's.
        title: what happened, to what.
        field: path of the mistake in the request, e.g. `roles[1].replicas`.
        hint: what to do.
    """

    code: str
    status: int
    title: str
    field: str = ""
    hint: str = ""


MAX_CONTAINERS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what may be asked for; an operator may lower them in the configuration.

    Attributes:
        max_size: containers of one session.
        max_containers: of all sessions of one user that have not ended, waiting ones among them.
        max_time_s: longest time limit.
        max_grace_s: longest time between TERM and KILL.
        max_priority: highest priority, and its negative the lowest.
    """

    max_size: int = 10_000
    max_containers: int = MAX_CONTAINERS
    max_time_s: float = 366 * 86_400.0
    max_grace_s: float = 3_600.0
    max_priority: int = 1_000


@enum.unique
class StopCause(enum.StrEnum):
    """Why a session was told to stop. Set once; the first cause is the one that counts."""

    USER = "user"
    KERNEL_FAILED = "kernel-failed"
    MAIN_EXITED = "main-exited"
    TIME_LIMIT = "time-limit"
    DEADLINE = "deadline"
    REQUEUE = "requeue"
    DRAIN = "drain"
    DEPENDENCY = "dependency"


Then = Literal["", "end", "again"]
"""What was asked for after a stop: nothing (the rules decide), no other attempt, another one."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A session's stop.

    Attributes:
        rank: whose failure or end it was, None when nobody's.
        text: the sentence for the user.
        at: when commands are stopped; a moment ahead where somebody inside waits for the answer.
        grace_s: in place of the session's own; None is the session's own.
        then: what comes after it, see `Then`; a later request may set it, `end` is never taken
            back.
    """

    cause: StopCause
    text: str
    at: datetime
    rank: int | None = None
    grace_s: float | None = None
    then: Then = ""


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """The network of an attempt: `control.Network` and how far it is.

    Attributes:
        engine_id: empty until the owner has made it.
        problem: the owner's last failure with it, as a sentence.
        failed: it will not be made: the session cannot start.
        released: the owner has removed it (or never made it); its subnet is free. The hosts' own
            is so from the start: there is nothing to make and to remove.
    """

    name: str
    driver: Literal["bridge", "overlay", "host"]
    subnet: str
    owner: AgentId
    engine_id: str = ""
    problem: str = ""
    failed: bool = False
    released: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """A session as the database has it.

    Attributes:
        spec: with everything filled in; `spec.roles` holds every role in full.
        state: the fold of its kernels (`core.session.settle`), kept for filtering.
        attempt: counts from 1. What follows in this list is the attempt's own.
        reason: why it waits or how it ended, as a sentence; empty when there is nothing to say.
        exit_code: once ended.
        failed_rank: whose failure came first, None while nobody failed by itself.
        network: of the current attempt, once placed.
        warnings: sentences of admission.
        charged: how many attempts before this one count as failures of the session itself.
        because: how the attempt before ended, a sentence; empty for the first.
        not_before: it gets no place before this moment; None is at once.
        warned_at: when its warning signal was sent, None while it was not.
        held: it stays in the queue until it is released.
        extended_s: what was added to its time limit.
        kept_until: it has failed, and its containers stay, stopped, for a look; None otherwise.
        number: sessions are counted as they arrive, from 1; none is given twice.
    """

    id: SessionId
    name: str
    user: str
    cluster: ClusterName
    spec: SessionSpec
    state: SessionState
    attempt: int
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    stop: Stop | None = None
    reason: str = ""
    exit_code: int | None = None
    failed_rank: int | None = None
    network: NetworkRow | None = None
    warnings: tuple[str, ...] = ()
    charged: int = 0
    because: str = ""
    not_before: datetime | None = None
    warned_at: datetime | None = None
    held: bool = False
    extended_s: float = 0.0
    kept_until: datetime | None = None
    number: int = 0

    @property
    def time_limit_s(self) -> float | None:
        """Seconds from RUNNING, with what was added; None is without end."""
        limit = self.spec.time_limit_s
        return None if limit is None else limit + self.extended_s


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel as the database has it.

    Attributes:
        state_at: when it entered its state.
        ended_as: the ended state it went through first, kept when it becomes REMOVED.
        cause: of its end, see `control.KernelReport`.
        message: the sentence that goes with the cause.
        detail: what its agent does with it now, a sentence.
        gpus: device ids held on its agent.
        interface: of its host, the one that carries the address; only on the host's network.
        ssh_port, service_port: of its host, held for it; 0 but on the host's network.
        folders: see `control.KernelReport`.
    """

    id: KernelId
    session: SessionId
    rank: int
    role: str
    replica: int
    host_name: str
    slots: Slots
    shm_bytes: int
    state: KernelState
    state_at: datetime
    gpu_model: str = ""
    agent: AgentId | None = None
    address: str = ""
    gpus: tuple[str, ...] = ()
    interface: str = ""
    ssh_port: int = 0
    service_port: int = 0
    ended_as: KernelState | None = None
    exit_code: int | None = None
    cause: str = ""
    message: str = ""
    detail: str = ""
    host_key: str = ""
    user_key: str = ""
    container_id: str = ""
    warnings: tuple[str, ...] = ()
    folders: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def ended(self) -> bool:
        """It will never run (again)."""
        return self.state in ENDED

    @property
    def holds(self) -> bool:
        """It may occupy slots, devices and an address on its agent."""
        return self.agent is not None and self.state is not KernelState.REMOVED


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session with the kernels of its current attempt, in rank order.

    Attributes:
        past: earlier attempts of which something is left on a host, each as a row of its own
            that has ended.
    """

    session: Session
    kernels: tuple[Kernel, ...]
    past: tuple[SessionRow, ...] = ()

    def of(self, attempt: int) -> SessionRow | None:
        """Find an attempt, the current one or one of those before it that left something."""
        if self.session.attempt == attempt:
            return self
        return next((row for row in self.past if row.session.attempt == attempt), None)


@dataclass(frozen=True, slots=True)
class Drain:
    """A host that is out of service: it gets no new work.

    Attributes:
        reason: with who said so, a sentence.
        deadline: what still runs there is stopped then; None is never.
        signal: sent once at the start to the commands of sessions that run there; 0 is none.
        signalled: it was sent.
    """

    reason: str
    at: datetime
    deadline: datetime | None = None
    signal: int = 0
    signalled: bool = False


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """An agent: who it is, and what it said last.

    Attributes:
        public_key: its own CURVE key, Z85.
        observed: its newest report; after a restart of the manager the one stored last,
            without kernels, networks and secrets.
        seen_at: when it was heard last, None when never.
        connected: its link is up now; False after a restart of the manager.
        lost: it was silent for so long that its kernels were given up, and is not back yet.
        drain: it gets no new work; None while it is in service.
    """

    name: AgentId
    cluster: ClusterName
    public_key: str
    joined_at: datetime
    observed: Observed | None = None
    seen_at: datetime | None = None
    connected: bool = False
    lost: bool = False
    drain: Drain | None = None

    @property
    def host_network(self) -> HostNetwork | None:
        """What it gives to containers on its host's network; None where there may be none."""
        return self.observed.host_network if self.observed is not None else None


@dataclass(frozen=True, slots=True)
class Removal:
    """An order to remove a cluster; it is never taken back.

    Attributes:
        by: the user.
        force: agents that are away are not waited for.
    """

    at: datetime
    by: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """A named pool of agents.

    Attributes:
        created_at: None where it was there before clusters were noted.
        removal: None while it is in use.
        removed_at: when nothing of it was left; its row stays, so that its name is not used
            again by mistake.
        leaves: what was left behind on hosts that were not waited for, as sentences.
        founder: who was told last to make the swarm; it may have.
    """

    name: ClusterName
    created_at: datetime | None = None
    created_by: str = ""
    removal: Removal | None = None
    removed_at: datetime | None = None
    leaves: tuple[str, ...] = ()
    founder: AgentId | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is alive: sessions that have not ended or still hold something, all agents, and
    the clusters that are not gone.
    """

    cluster_id: str
    sessions: Mapping[SessionId, SessionRow] = field(default_factory=dict)
    agents: Mapping[AgentId, AgentRecord] = field(default_factory=dict)
    clusters: Mapping[ClusterName, Cluster] = field(default_factory=dict)

    def rows(self) -> Iterator[SessionRow]:
        """Walk all attempts of all sessions that may hold something."""
        for row in self.sessions.values():
            yield row
            yield from row.past

    def attempt(self, session: SessionId, attempt: int) -> SessionRow | None:
        """Find one attempt, if it may hold something."""
        row = self.sessions.get(session)
        return None if row is None else row.of(attempt)
