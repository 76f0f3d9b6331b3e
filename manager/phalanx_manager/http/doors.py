"""What the API needs from the rest of the manager."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from phalanx_manager.clock import Clock
from phalanx_manager.core.model import Limits
from phalanx_manager.core.session import LOST_AFTER_S
from phalanx_manager.http.logs_live import Outputs
from phalanx_manager.http.uploads import Uploads
from phalanx_manager.rpc.shares import Shares
from phalanx_manager.rpc.steps import Steps
from phalanx_manager.store.port import Store
from phalanx_manager.wake import Chimes
from phalanx_wire.ids import AgentId
from phalanx_wire.mux import Stream
from phalanx_wire.stream import Call


class Link(Protocol):
    """The way to the agents; `rpc.agents.Agents` is one."""

    def connected(self) -> frozenset[AgentId]:
        """Tell who is there now."""
        ...

    async def open(self, agent: AgentId, call: Call, window: int = ...) -> Stream:
        """Open a stream, or raise the link's `Unavailable`."""
        ...

    def expel(self, agent: AgentId) -> None:
        """End an agent's link: it has to greet again, and is let in or not."""
        ...


@dataclass(frozen=True, slots=True)
class Rates:
    """How much one caller may ask.

    Attributes:
        per_s, burst: requests, as a bucket that fills.
        streams: open at once: logs, events, execs, waits.
        everybodys_streams: those of all callers; a connection of the API's each.
    """

    per_s: float = 500.0
    burst: int = 1_500
    streams: int = 2_048
    everybodys_streams: int = 6_144


@dataclass(frozen=True, slots=True)
class Joining:
    """What a join token tells an agent, see `wire.join`."""

    addresses: tuple[str, ...]
    server_key: str


@dataclass(frozen=True, slots=True)
class Doors:
    """All that the handlers work with.

    Attributes:
        chimes: rung with a session's id after every commit that touches it or adds an event of
            it; with an empty topic for events of no session.
        entropy: fresh randomness, so many bytes.
        turns: how often each loop has turned, for the metrics.
        lost_after_s: of sessions that do not say it themselves.
        ready: why the manager cannot work now, a sentence; empty when it can.
        shares: streams to agents, of each user within bounds.
        steps: runs tasks in running sessions.
        outputs: what is followed now.
    """

    store: Store
    link: Link
    clock: Clock
    chimes: Chimes
    entropy: Callable[[int], bytes]
    uploads: Uploads
    joining: Joining
    limits: Limits
    rates: Rates = field(default_factory=Rates)
    turns: Callable[[], Mapping[str, int]] = dict
    lost_after_s: float = LOST_AFTER_S
    ready: Callable[[], str] = str
    shares: Shares = field(kw_only=True)
    steps: Steps = field(kw_only=True)
    outputs: Outputs = field(kw_only=True)
