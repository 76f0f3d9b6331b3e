"""Carries out what time brings: deadlines, time limits, silent agents."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

import structlog

from phalanx_manager.clock import Clock
from phalanx_manager.core.govern import rule
from phalanx_manager.core.model import AgentRecord, Drain, Snapshot
from phalanx_manager.core.notice import Decision
from phalanx_manager.store.port import NewEvent, Store
from phalanx_manager.wake import Bell
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.lifecycle import KernelState

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
        *,
        touched: Callable[[SessionId], None],
    ) -> None:
        """Args: touched: is told whose goals differ now although nothing of it was written."""
        self.bell = Bell()
        self._store = store
        self._clock = clock
        self._silence_s = silence_s
        self._lost_after_s = lost_after_s
        self._touched = touched
        self._wait_s = 0.0

    async def _decide(
        self, decisions: Collection[Decision], snapshot: Snapshot, now: datetime
    ) -> None:
        """Write down that signals are sent; by that they are in their agents' goals."""
        drained: set[AgentId] = set()
        for decision in decisions:
            if decision.agent is None:
                if not await self._store.warn(
                    decision.session, decision.attempt, decision.text, now
                ):
                    continue
            else:
                if decision.agent not in drained:
                    drained.add(decision.agent)
                    await self._signalled(snapshot.agents[decision.agent], now)
                event = NewEvent(now, "session.warned", decision.text, decision.session)
                await self._store.add_event(event)
                self._touched(decision.session)
            log.info("session.warned", session=decision.session, why=decision.text)

    async def _signalled(self, record: AgentRecord, now: datetime) -> None:
        if record.drain is not None:
            drain = replace(record.drain, signalled=True)
            text = f"commands on agent {record.name} are told that it is drained"
            await self._store.drain(record.name, drain, text, now)

    async def _drain_stuck(
        self, snapshot: Snapshot, agent: AgentId, why: str, now: datetime
    ) -> None:
        """Give no new work to a host that cannot end what it has."""
        record = snapshot.agents.get(agent)
        if record is not None and record.drain is None:
            await self._store.drain(agent, Drain(f"by itself: {why}", now), why, now)
            log.warning("agent.drained", agent=agent, why=why)

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
        await self._decide(ruling.decisions, snapshot, now)
        for agent, losses in ruling.lost.items():
            await self._store.record(losses, (), now)
            log.warning("kernels.lost", agent=agent, kernels=len(losses), silent_s=silence[agent])
        for agent in ruling.gone:
            await self._store.lose(agent, now)
            log.warning("agent.lost", agent=agent, silent_s=silence[agent])
        for session, attempt in ruling.looked_at:
            await self._store.let_go(session, attempt, now)
        for change, text in ruling.overdue:
            if await self._store.record((change,), (), now):
                kernel = change.after
                event = NewEvent(now, "kernel.overdue", text, kernel.session, kernel.rank)
                await self._store.add_event(event)
                log.warning("kernel.overdue", kernel=kernel.id, why=text)
                if change.seen is KernelState.STOPPING and kernel.agent is not None:
                    await self._drain_stuck(snapshot, kernel.agent, text, now)
        due_s = (ruling.next_at - now).total_seconds() if ruling.next_at else SAFETY_NET_S
        self._wait_s = max(_SHORTEST_S, min(due_s, SAFETY_NET_S))
