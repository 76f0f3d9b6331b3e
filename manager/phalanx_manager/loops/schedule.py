"""Gives waiting sessions their place, in the order of the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Network
from typing import Final

import structlog

from phalanx_manager.clock import Clock
from phalanx_manager.core import after, queue
from phalanx_manager.core.model import Caller, Session, SessionRow, Snapshot, Stop, StopCause
from phalanx_manager.core.seat import Placement, plan
from phalanx_manager.store.port import Store
from phalanx_manager.wake import Bell
from phalanx_wire.ids import SessionId

SAFETY_NET_S: Final = 5.0
_ANYBODY: Final = Caller("", "admin")

log = structlog.get_logger(__name__)


class Schedule:
    """The scheduling loop; ring `bell` when a session came or room may have become free."""

    def __init__(self, store: Store, clock: Clock, pool: IPv4Network) -> None:
        self.bell = Bell()
        self._store = store
        self._clock = clock
        self._pool = pool
        self._wait_s = 0.0

    async def turn(self) -> None:
        """Wait for the bell, then place all that can be placed."""
        await self.bell.wait(self._wait_s)
        snapshot = await self._store.load()
        now = self._clock.now()
        for waiting in queue.waiting(snapshot, now).values():
            await self._serve([row for row in waiting if await self._may_run(snapshot, row, now)])
        due = queue.next_due(snapshot, now)
        due_s = (due - now).total_seconds() if due is not None else SAFETY_NET_S
        self._wait_s = min(due_s, SAFETY_NET_S)

    async def _may_run(self, snapshot: Snapshot, row: SessionRow, now: datetime) -> bool:
        """Look whether those whose end a session waits for have ended."""
        wishes = after.parse(row.session.spec.after) if row.session.spec.after else None
        if wishes is None:
            return True
        others = {SessionId(wish.ref): await self._session(snapshot, wish.ref) for wish in wishes}
        match after.verdict(wishes, others):
            case after.Waits(reason):
                await self._store.say(row.session.id, reason, now)
            case after.Never(reason):
                stop = Stop(StopCause.DEPENDENCY, reason, now)
                if await self._store.stop(row.session.id, stop):
                    log.info("session.stopped", session=row.session.id, why=reason)
            case None:
                return True
        return False

    async def _session(self, snapshot: Snapshot, session: str) -> Session | None:
        alive = snapshot.sessions.get(SessionId(session))
        if alive is not None:
            return alive.session
        found = await self._store.session(session, _ANYBODY)
        return found.session if isinstance(found, SessionRow) else None

    async def _serve(self, waiting: Sequence[SessionRow]) -> None:
        """Walk one cluster's queue; who blocks keeps all behind it waiting."""
        ahead: list[SessionRow] = []
        for row in waiting:
            name = row.session.id
            now = self._clock.now()
            if ahead:
                await self._store.say(name, queue.behind(ahead), now)
                ahead.append(row)
                continue
            found = plan(await self._store.load(), row, self._pool, now)
            if not isinstance(found, Placement):
                await self._store.say(name, found.reason, now)
                if found.blocks:
                    ahead.append(row)
            elif await self._store.place(found, now):
                hosts = list(dict.fromkeys(seat.agent for seat in found.seats))
                log.info("session.placed", session=name, agents=hosts, kernels=len(found.seats))
                await asyncio.sleep(0)  # the first placed start while the last are being placed
            else:
                # What moved has rung the bell by its commit; nothing else is worth another look.
                log.warning("session.not_placed", session=name)
                return
