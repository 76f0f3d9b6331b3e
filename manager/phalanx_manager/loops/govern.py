"""Carries out what time brings: deadlines, time limits, silent agents."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import structlog

from phalanx_manager.clock import Clock
from phalanx_manager.core.govern import rule
from phalanx_manager.store.port import NewEvent, Store
from phalanx_manager.wake import Bell
from phalanx_wire.ids import AgentId

SAFETY_NET_S: Final = 5.0
_SHORTEST_S: Final = 0.02

log = structlog.get_logger(__name__)


class Govern:
    """The governing loop; ring `bell` when a session has changed: a limit may be nearer."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        silence_s: Callable[[Collection[AgentId]], Mapping[AgentId, float]],
        lost_after_s: float,
    ) -> None:
        self.bell = Bell()
        self._store = store
        self._clock = clock
        self._silence_s = silence_s
        self._lost_after_s = lost_after_s
        self._wait_s = 0.0

    async def turn(self) -> None:
        """Wait until something may be due, then rule."""
        await self.bell.wait(self._wait_s)
        snapshot = await self._store.load()
        now = self._clock.now()
        silence = self._silence_s(snapshot.agents.keys())
        ruling = rule(snapshot, silence, self._lost_after_s, now)
        for session, stop in ruling.stops:
            if await self._store.stop(session, stop):
                log.info("session.stopped", session=session, cause=stop.cause, why=stop.text)
        for agent, losses in ruling.lost.items():
            await self._store.record(losses, (), now)
            log.warning("kernels.lost", agent=agent, kernels=len(losses), silent_s=silence[agent])
        for agent in ruling.gone:
            await self._store.lose(agent, now)
            log.warning("agent.lost", agent=agent, silent_s=silence[agent])
        for change, text in ruling.overdue:
            if await self._store.record((change,), (), now):
                kernel = change.after
                event = NewEvent(now, "kernel.overdue", text, kernel.session, kernel.rank)
                await self._store.add_event(event)
                log.warning("kernel.overdue", kernel=kernel.id, why=text)
        due_s = (ruling.next_at - now).total_seconds() if ruling.next_at else SAFETY_NET_S
        self._wait_s = max(_SHORTEST_S, min(due_s, SAFETY_NET_S))
