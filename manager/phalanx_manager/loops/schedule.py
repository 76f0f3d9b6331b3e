"""Gives waiting sessions their place, in the order of the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Final

import structlog

from phalanx_manager.clock import Clock
from phalanx_manager.core import queue
from phalanx_manager.core.model import SessionRow
from phalanx_manager.core.seat import Placement, plan
from phalanx_manager.store.port import Store
from phalanx_manager.wake import Bell

SAFETY_NET_S: Final = 5.0

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
            await self._serve(waiting)
        due = queue.next_due(snapshot, now)
        due_s = (due - now).total_seconds() if due is not None else SAFETY_NET_S
        self._wait_s = min(due_s, SAFETY_NET_S)

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
                self.bell.ring()  # something moved: look again
                return
