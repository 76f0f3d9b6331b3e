"""What the link needs from the rest of the manager."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from phalanx_manager.core.model import Refusal
from phalanx_wire.control import Observed
from phalanx_wire.ids import AgentId, ClusterName
from phalanx_wire.mux import Stream


@dataclass(frozen=True, slots=True)
class KnownAgent:
    """The key belongs to this agent."""

    name: AgentId
    cluster: ClusterName


@dataclass(frozen=True, slots=True)
class JoinKey:
    """The key is of a join token, maybe a used or expired one: it may say `Enrol`."""


class KeyDirectory(Protocol):
    """Who owns which key.

    Raises:
        Unavailable: by both calls, where the store cannot answer; the agent tries again.
    """

    async def who(self, public_key: str) -> KnownAgent | JoinKey | None:
        """Tell whose key this is; None is a stranger's, who does not get past the handshake."""

    async def enrol(self, token_key: str, name: AgentId, agent_key: str) -> KnownAgent | Refusal:
        """Spend the join token with this key; the same again gives the same answer."""


class AgentHandler(Protocol):
    """Who wants to know; the calls must return at once and not raise."""

    def connected(self, agent: AgentId) -> None:
        """The agent has said hello on a new connection; it needs its goals."""

    def disconnected(self, agent: AgentId) -> None:
        """Its connection is gone; it may come back."""

    def alive(self, agent: AgentId) -> None:
        """It said that it lives, and is answered: what it has is not given up now."""

    def observed(self, agent: AgentId, observed: Observed) -> None:
        """It said what it has."""


@dataclass(frozen=True, slots=True)
class House:
    """What agents are told about us, and who serves the streams that they open.

    Attributes:
        heartbeat_s, egress_subnet, cluster_id, epoch: see `control.Welcome`.
        serve: runs in a task of its own for each stream that an agent opens.
        surely_leads: no other manager can count the agents' silence now. Else nobody is welcomed,
            no beat is answered, and no goals are sent.
    """

    cluster_id: str
    heartbeat_s: float
    egress_subnet: str
    serve: Callable[[AgentId, Stream], Awaitable[None]]
    epoch: int = 0
    surely_leads: Callable[[], bool] = lambda: True
