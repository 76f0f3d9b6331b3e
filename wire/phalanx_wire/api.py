"""The shapes of the HTTP API; `/v1/openapi.json` is made from them.

Times are RFC 3339 in UTC. Lists of kernels are in rank order.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from phalanx_wire.ids import AgentId, KernelId, SessionId
from phalanx_wire.spec import Kind, Mode, SessionSpec
from phalanx_wire.stream import Recipients

SessionState = Literal[
    "pending",
    "scheduled",
    "preparing",
    "starting",
    "running",
    "stopping",
    "succeeded",
    "failed",
    "cancelled",
    "timeout",
]
ENDED_STATES: tuple[SessionState, ...] = ("succeeded", "failed", "cancelled", "timeout")


class KernelView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One container of a session.

    Attributes:
        state: a `KernelState` in lower case.
        reason: why it is in this state, as a sentence; None when there is nothing to say.
        ssh_port, service_port: of its host, kept for it; left out but on the host's network.
    """

    rank: int
    host_name: str
    role: str
    agent: AgentId | None
    address: str | None
    state: str
    exit_code: int | None
    reason: str | None
    ssh_port: int = 0
    service_port: int = 0


class SessionView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session in full: what `show -o json` prints.

    Attributes:
        warnings: sentences; left out when there are none.
        number: sessions are counted as they arrive; another way to name one.
        user: whose it is.
        held: it stays in the queue until it is released.
        extended_s: what was added to the time limit of its spec.
    """

    id: SessionId
    name: str
    kind: Kind
    mode: Mode
    state: SessionState
    reason: str | None
    exit_code: int | None
    attempt: int
    cluster: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    kernels: tuple[KernelView, ...]
    spec: SessionSpec
    warnings: tuple[str, ...] = ()
    number: int = 0
    user: str = ""
    held: bool = False
    extended_s: float = 0.0


class SessionList(msgspec.Struct, frozen=True):
    """Sessions, newest first."""

    sessions: tuple[SessionView, ...]


class DryRun(msgspec.Struct, frozen=True):
    """Where a request would go now.

    Attributes:
        spec: with everything filled in.
        placement: the agent of each rank, or None when it does not fit now.
        reason: why it does not fit now.
    """

    spec: SessionSpec
    placement: tuple[AgentId, ...] | None
    reason: str | None


class EnvVar(msgspec.Struct, frozen=True):
    """One variable of one rank.

    Attributes:
        source: `phalanx`, `user`, or `user over phalanx` where the user's value won.
        read_by: who reads it, e.g. `PyTorch env://`; empty for the user's own.
    """

    name: str
    value: str
    source: Literal["phalanx", "user", "user over phalanx"]
    read_by: str = ""


class RankEnv(msgspec.Struct, frozen=True):
    """The environment of one rank, sorted by name."""

    rank: int
    host_name: str
    variables: tuple[EnvVar, ...]


class EnvView(msgspec.Struct, frozen=True):
    """The environment of every rank of a session."""

    profile: str
    ranks: tuple[RankEnv, ...]


class SshRank(msgspec.Struct, frozen=True):
    """How the ssh server of one container is known.

    Attributes:
        state: a `KernelState` in lower case; it takes connections while running.
        host_key: public, OpenSSH's one-line form; None until it has been made.
    """

    rank: int
    host_name: str
    state: str
    host_key: str | None


class SshView(msgspec.Struct, frozen=True):
    """What an ssh client has to know of a session to trust its containers, and no others."""

    id: SessionId
    name: str
    attempt: int
    ranks: tuple[SshRank, ...]


class EventView(msgspec.Struct, frozen=True):
    """Something that happened to a session; `id` grows and is the resume point of a stream.

    Attributes:
        kind: dotted, e.g. `session.submitted`, `kernel.running`, `session.failed`.
        text: the sentence.
    """

    id: int
    at: datetime
    session: SessionId | None
    rank: int | None
    kind: str
    text: str


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reason why a session is as it is.

    Attributes:
        code: stable, for programs: `network-cut`, `master-not-listening`, ...
        text: the sentence.
        ranks: whom it is about; empty is the whole session.
        hint: what to do.
        certain: it was seen; else it is the likely meaning of what was seen.
    """

    code: str
    text: str
    ranks: tuple[int, ...] = ()
    hint: str = ""
    certain: bool = True


class WhyView(msgspec.Struct, frozen=True):
    """Why a session is as it is: what `why -o json` prints.

    Attributes:
        findings: the likeliest first; there is always one.
        looked_at: when; of a running session its containers were looked at.
        missing: ranks that run and could not be looked at.
    """

    id: SessionId
    name: str
    state: SessionState
    attempt: int
    looked_at: datetime
    findings: tuple[Finding, ...]
    missing: tuple[int, ...]


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """One line of output between agent and manager.

    Attributes:
        at_ns: Unix nanoseconds, the engine's clock.
        stderr: which stream.
        text: without its newline; undecodable bytes replaced.
    """

    at_ns: int
    stderr: bool
    text: str


class LogEvent(msgspec.Struct, frozen=True):
    """One line of output in a log stream (`event: log`)."""

    rank: int
    host_name: str
    at_ns: int
    stderr: bool
    text: str


class StopRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/sessions/{id}/stop`; without a grace the session's own counts."""

    grace_s: float | None = None


class SignalRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/sessions/{id}/signal`: `TERM`, `SIGUSR1` or `10`; None is all ranks.

    Attributes:
        to: the command, the tasks of steps (`srun`), or both; None is both under the profile
            `slurm`, else the command.
    """

    signal: str
    ranks: tuple[int, ...] | None = None
    to: Recipients | None = None


class ExtendRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/sessions/{id}/extend`: what the time limit gets more."""

    seconds: float


class Amounts(msgspec.Struct, frozen=True):
    """Amounts for people and programs: cores, bytes, devices, processes."""

    cpu: float
    mem_bytes: int
    gpu: int
    pids: int


class Holder(msgspec.Struct, frozen=True):
    """Who holds slots on a node."""

    session: SessionId
    session_name: str
    kernel: KernelId
    host_name: str


NodeState = Literal["ready", "suspect", "unreachable", "lost", "degraded", "draining", "drained"]


class DrainRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/nodes/{name}/drain`.

    Attributes:
        deadline_s: what still runs there is stopped then, and requeued if it may be.
        signal: sent at once to the commands of sessions that run there, e.g. `USR1`.
    """

    reason: str = ""
    deadline_s: float | None = None
    signal: str | None = None


class NodeView(msgspec.Struct, frozen=True):
    """An agent and its host.

    Attributes:
        state: ready, suspect, unreachable, lost, or degraded with the reason; draining while it
            gets no new work, and drained once nothing is left on it.
        swarm: the engine's state in a swarm.
        host_ports: kept for containers on the host's network, `61000-61999`; empty where none may
            be.
        public_key: Z85, of the agent; uploads are sealed for it.
    """

    name: AgentId
    cluster: str
    state: NodeState
    reason: str | None
    address: str
    engine: str
    capacity: Amounts
    used: Amounts
    gpu_models: tuple[str, ...]
    swarm: str
    last_seen_at: datetime | None
    holders: tuple[Holder, ...]
    strays: tuple[str, ...]
    warnings: tuple[str, ...]
    host_ports: str = ""
    public_key: str = ""


class NodeList(msgspec.Struct, frozen=True):
    """Nodes by name."""

    nodes: tuple[NodeView, ...]


class CreateToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/tokens`: a bearer token for people and programs."""

    name: str
    scope: Literal["admin", "user", "read-only"] = "user"
    ttl_s: float | None = None


class CreateAgentToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/agent-tokens`: lets one agent join.

    Attributes:
        name: the agent must call itself so; None is any free name.
        ttl_s: seconds until it expires unused.
    """

    name: str | None = None
    cluster: str = "default"
    ttl_s: float = 900.0


class TokenCreated(msgspec.Struct, frozen=True):
    """The only time the secret is shown."""

    id: str
    token: str
    expires_at: datetime | None


class TokenView(msgspec.Struct, frozen=True):
    """A token without its secret; `kind` is `bearer` or `agent`."""

    id: str
    kind: Literal["bearer", "agent"]
    name: str
    scope: str
    created_at: datetime
    expires_at: datetime | None
    used_by: str | None
    revoked: bool


class TokenList(msgspec.Struct, frozen=True):
    """Tokens, newest first."""

    tokens: tuple[TokenView, ...]


class UploadCreated(msgspec.Struct, frozen=True):
    """Answer of `PUT /v1/uploads`: the digest to name in a spec."""

    digest: str
    bytes: int


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem document, `application/problem+json`.

    Attributes:
        code: stable, for programs.
        title: what happened, to what, and what to do.
        field: path of the mistake in the request, e.g. `roles[1].replicas`.
    """

    code: str
    title: str
    status: int
    type: str = "about:blank"
    field: str = ""
    hint: str = ""
