"""Streams to agents on behalf of users, so that none of them has them all, nor all our memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from phalanx_manager.core.fair import may_have_more
from phalanx_manager.rpc.failure import Unavailable
from phalanx_wire.ids import AgentId
from phalanx_wire.mux import MAX_STREAMS, MIN_WINDOW_BYTES, Stream
from phalanx_wire.stream import WINDOW_BYTES, Call

MOST: Final = 4 * MAX_STREAMS
"""Of all users, to all agents: what may wait in them unread takes two gigabytes, and what each
user has in `_WINDOWS_BYTES`.
"""

_WINDOWS_BYTES: Final = 64 << 20
_PART: Final = 16
"""A stream's window is that part of what its user has left, but the least window always."""


class Link(Protocol):
    """The way to the agents; `rpc.agents.Agents` is one."""

    async def open(self, agent: AgentId, call: Call, window: int = ...) -> Stream:
        """Open a stream, or raise `Unavailable`."""


class Crowded(Unavailable):
    """The user has as many streams as may be."""


@dataclass(slots=True)
class _Held:
    """What one user has.

    Attributes:
        windows_bytes: what may wait unread in all streams.
    """

    streams: int = 0
    at: Counter[AgentId] = field(default_factory=Counter)
    windows_bytes: int = 0


class Shares:
    """The streams of all users. A stream is held for as long as somebody may read it: also after
    its end, when the link knows it no more.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._of: dict[str, _Held] = {}
        self._at: Counter[AgentId] = Counter()

    @asynccontextmanager
    async def open(self, user: str, agent: AgentId, call: Call) -> AsyncIterator[Stream]:
        """Open a stream for a user, and close it at the end.

        Raises:
            Crowded: the user has to end others first.
            Unavailable: the agent is not connected.
        """
        with self._hold(user, agent) as window:
            async with await self._link.open(agent, call, window) as stream:
                yield stream

    @contextmanager
    def _hold(self, user: str, agent: AgentId) -> Iterator[int]:
        """Hold a place, and tell how much may wait in it."""
        held = self._of.get(user) or _Held()
        if not may_have_more(held.at[agent], self._at[agent], MAX_STREAMS):
            raise _crowded(user, held.at[agent], f"to agent {agent}")
        if not may_have_more(held.streams, self._at.total(), MOST):
            raise _crowded(user, held.streams, "to all agents")
        self._of[user] = held
        window = (_WINDOWS_BYTES - held.windows_bytes) // _PART
        window = min(max(window, MIN_WINDOW_BYTES), WINDOW_BYTES)
        self._count(held, agent, 1, window)
        try:
            yield window
        finally:
            self._count(held, agent, -1, -window)
            if not held.streams:
                del self._of[user]

    def _count(self, held: _Held, agent: AgentId, streams: int, window: int) -> None:
        held.streams += streams
        held.windows_bytes += window
        for counter in (held.at, self._at):
            counter[agent] += streams
            if not counter[agent]:
                del counter[agent]


def _crowded(user: str, streams: int, where: str) -> Crowded:
    return Crowded(user, f"has {streams} streams {where}, as many as may be", "end some of them")
