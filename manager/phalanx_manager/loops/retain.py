"""Forgets what ended long ago, in steps so small that nobody waits for them, and archives that
nobody needs any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Final

import structlog

from phalanx_manager.clock import Clock
from phalanx_manager.store.port import Store
from phalanx_manager.wake import Bell

EVERY_S: Final = 3600.0
STEP: Final = 50
_SHORTEST_S: Final = 0.05
"""Between two steps others have the database."""

log = structlog.get_logger(__name__)


class Retain:
    """The forgetting loop."""

    def __init__(self, store: Store, clock: Clock, keep: timedelta) -> None:
        self.bell = Bell()
        self._store = store
        self._clock = clock
        self._keep = keep
        self._wait_s = _SHORTEST_S
        self._forget_uploads: Callable[[Collection[str]], int] | None = None

    def attach(self, forget_uploads: Callable[[Collection[str]], int]) -> None:
        """Take the way to forget archives but those that are named."""
        self._forget_uploads = forget_uploads

    async def turn(self) -> None:
        """Wait, then take one step."""
        await self.bell.wait(self._wait_s)
        pruned = await self._store.prune(self._clock.now() - self._keep, STEP)
        self._wait_s = _SHORTEST_S if pruned else EVERY_S
        if self._forget_uploads is not None:
            rows = (await self._store.load()).sessions.values()
            self._forget_uploads({one for row in rows if (one := row.session.spec.upload)})
        if pruned:
            log.info("retain.pruned", rows=pruned)
