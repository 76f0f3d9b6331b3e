"""What the rest of the manager wants from a database. Expected outcomes are values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from phalanx_manager.core.admit import Admitted
from phalanx_manager.core.model import (
    MAX_CONTAINERS,
    AgentRecord,
    Caller,
    Cluster,
    Drain,
    Refusal,
    Removal,
    Scope,
    SessionRow,
    Snapshot,
    Stop,
)
from phalanx_manager.core.observe import KernelChange, NetworkChange
from phalanx_manager.core.seat import Placement
from phalanx_wire.api import EventView, SessionState
from phalanx_wire.control import Observed
from phalanx_wire.ids import AgentId, ClusterName, SessionId


class Unavailable(Exception):  # noqa: N818 - it names the condition, as in every room
    """The database cannot answer.

    Attributes:
        what: the file or server.
        doing: what was tried.
        hint: what to do.
    """

    def __init__(self, what: str, doing: str, hint: str = "") -> None:
        super().__init__(f"{what}: {doing}" + (f"; {hint}" if hint else ""))
        self.what, self.doing, self.hint = what, doing, hint


# ---------------------------------------------------------------- sessions


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session to write down.

    Attributes:
        id: fresh, by `ids.session_id`.
        idempotency_key: of the caller's request, None when it gave none.
        body_digest: what the key stands for: a digest of the request body.
        most: containers that the caller's sessions that have not ended may have together.
    """

    id: SessionId
    caller: Caller
    admitted: Admitted
    at: datetime
    idempotency_key: str | None = None
    body_digest: str = ""
    most: int = MAX_CONTAINERS


@dataclass(frozen=True, slots=True)
class Created:
    """The session is in the database."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """The same request came before; this is its session."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions to list, newest first.

    Attributes:
        user: None is everybody's.
        states: None is all that have not ended, unless `ended_too`.
    """

    user: str | None = None
    states: tuple[SessionState, ...] | None = None
    ended_too: bool = False
    limit: int = 100


# ---------------------------------------------------------------- tokens, agents


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A bearer token (`secret_hash` is SHA-256 of it) or a join token (its one-time public key).

    Attributes:
        secret_hash: hex; empty for a join token.
        public_key: Z85, of a join token; empty for a bearer token.
        name: of the user; of a join token the agent's name, empty for any.
        used_by: the agent that joined with it.
    """

    id: str
    kind: Literal["bearer", "agent"]
    name: str
    scope: Scope
    cluster: ClusterName
    created_at: datetime
    expires_at: datetime | None
    secret_hash: str = ""
    public_key: str = ""
    used_by: str | None = None
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """The agent is known by its own key now."""

    agent: AgentRecord


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append; see `api.EventView`.

    Attributes:
        cluster: where it happened; of a session's events the session's own when left out.
    """

    at: datetime
    kind: str
    text: str
    session: SessionId | None = None
    rank: int | None = None
    cluster: ClusterName | None = None


class Store(Protocol):
    """The one durable truth of what shall be. Every call is one transaction.

    Raises:
        Unavailable: from every call, when the database cannot answer.
    """

    @property
    def cluster_id(self) -> str:
        """Random, made with the database."""

    # -- sessions

    async def submit(self, request: NewSession) -> Created | AlreadyThere | Refusal:
        """Write a session and its kernels, all PENDING. Refusals: `idempotency_mismatch`,
        `name_taken`, `too_many_containers`, and for its cluster as `core.clusters.closed`.
        """

    async def repeated(self, user: str, key: str, digest: str) -> AlreadyThere | Refusal | None:
        """Find the session that a user was given for an idempotency key, when it is durable; None:
        there is none. Refusal: `idempotency_mismatch`, the key was for another body.
        """

    async def load(self) -> Snapshot:
        """All that is alive."""

    async def session(self, ref: str, caller: Caller) -> SessionRow | Refusal | None:
        """Find by id, by name (the newest of that name), or by a unique prefix of either. Other
        people's sessions are not there but for an admin. Refusal: `ambiguous`.
        """

    async def sessions(self, wanted: SessionFilter) -> tuple[SessionRow, ...]:
        """List, newest first."""

    async def stop(self, session: SessionId, stop: Stop) -> bool:
        """Set the stop cause, or with a shorter grace hurry one that was set before (its cause
        stays), or say what comes then: no other attempt once the user has stopped it. False when
        none of these, or when the session has ended. What is still in the queue is cancelled at
        once, and the user's stop lets containers go that were kept for a look.
        """

    async def warn(self, session: SessionId, attempt: int, text: str, at: datetime) -> bool:
        """Note that an attempt's warning signal is about to be sent. False when it was already, or
        when that attempt is over: it is sent at most once.
        """

    async def let_go(self, session: SessionId, attempt: int, at: datetime) -> None:
        """Keep the containers of a failed attempt no longer."""

    async def hold(self, session: SessionId, text: str, at: datetime, *, held: bool) -> bool:
        """Keep a session in the queue, or let it go; the text is told. False when it does not
        wait there, or is so already.
        """

    async def extend(self, session: SessionId, seconds: float, text: str, at: datetime) -> bool:
        """Add to the time limit of the current attempt; the text is told. False when it has none,
        is being stopped or has ended.
        """

    async def attempt(self, session: SessionId, attempt: int) -> SessionRow | None:
        """One attempt of a session, the current one or any before it."""

    async def say(self, session: SessionId, reason: str, at: datetime) -> None:
        """Keep why a session waits."""

    # -- kernels and networks

    async def place(self, placement: Placement, at: datetime) -> bool:
        """Bind a whole gang or nothing; False when something moved meanwhile."""

    async def record(
        self,
        kernels: Sequence[KernelChange],
        networks: Sequence[NetworkChange],
        at: datetime,
    ) -> bool:
        """Write what was observed, and fold the sessions concerned (`session.settle`); whose
        attempt ends by that goes back to the queue or not (`attempts.onward`). False when some
        change was dropped because its kernel had moved: look again.
        """

    # -- agents

    async def saw(self, agent: AgentId, observed: Observed, at: datetime) -> bool:
        """Keep an agent's newest report; it is not lost (any more). True when it says something
        new of the host itself: others may have a place now.
        """

    async def link(self, agent: AgentId, *, up: bool, at: datetime) -> None:
        """An agent's link came up or broke."""

    async def lose(self, agent: AgentId, at: datetime) -> None:
        """Note the verdict that an agent is lost."""

    async def drain(self, agent: AgentId, drain: Drain | None, text: str, at: datetime) -> bool:
        """Take an agent out of service, or back into it; the text is told. False when there is no
        such agent.
        """

    async def forget(self, agent: AgentId, text: str, at: datetime) -> None:
        """Know an agent no longer: its key is worth nothing, and its name is free. What it held
        has to be free before (`core.forget`).
        """

    async def agents(self) -> tuple[AgentRecord, ...]:
        """All agents by name."""

    async def agent_by_key(self, public_key: str) -> AgentRecord | None:
        """Tell whose key this is; None where the token that it came by is revoked."""

    # -- tokens

    async def add_token(self, token: TokenRow) -> None:
        """Write a token down."""

    async def token_by_hash(self, secret_hash: str) -> TokenRow | None:
        """Find a bearer token, revoked and expired ones included."""

    async def tokens(self) -> tuple[TokenRow, ...]:
        """All, newest first."""

    async def revoke_token(self, token: str) -> TokenRow | None:
        """Revoke by id; None when there is none. The key of an agent that joined by it is worth
        nothing from now on; it may join again by another token.
        """

    async def agent_token(self, public_key: str) -> TokenRow | None:
        """Find a join token by its one-time key."""

    async def use_agent_token(
        self, public_key: str, agent: AgentId, agent_public_key: str, at: datetime
    ) -> Joined | Refusal:
        """Spend a join token: one transaction, so that it is spent once. Saying the same again
        gives the same answer. Refusals: `token_unknown`, `token_used`, `token_revoked`,
        `token_expired`, `agent_name_mismatch`, `agent_name_taken`.
        """

    # -- clusters

    async def cluster(self, name: str) -> Cluster | None:
        """Find a cluster, also one that is gone."""

    async def clusters(self) -> tuple[Cluster, ...]:
        """All by name, also those that are gone."""

    async def add_cluster(self, cluster: Cluster, *, reuse: bool) -> Refusal | None:
        """Write a cluster down. Refusals: `cluster_exists`, `cluster_deleting`, and, unless told
        to reuse it, `cluster_name_used`.
        """

    async def remove_cluster(self, name: ClusterName, removal: Removal, text: str) -> bool:
        """Order a cluster's end, or add force to an order: it takes no session and no agent from
        now on. False when there is nothing to add.
        """

    async def cluster_left(self, name: ClusterName, leaves: Sequence[str]) -> None:
        """Add to what a cluster that is being removed leaves behind."""

    async def tell_founder(self, name: ClusterName, agent: AgentId) -> None:
        """Note who is about to be told to make a cluster's swarm, instead of who was before."""

    async def drop_cluster(self, name: ClusterName, text: str, at: datetime) -> bool:
        """Note that nothing is left of a cluster; False while a session or an agent is."""

    # -- events

    async def events(
        self, after: int, session: SessionId | None, limit: int
    ) -> tuple[EventView, ...]:
        """Events with a greater id, oldest first; of one session or of all."""

    async def events_of_cluster(
        self, after: int, cluster: ClusterName, limit: int
    ) -> tuple[EventView, ...]:
        """Events in one cluster: of its sessions, its agents and itself."""

    async def last_event(self) -> int:
        """The id of the newest event, 0 before any."""

    async def add_event(self, event: NewEvent) -> None:
        """Append one."""

    async def prune(self, before: datetime, limit: int) -> int:
        """Forget at most so many sessions that ended before then and of which nothing is left,
        with all that belongs to them and their idempotency keys, and as many events; how many.
        """
