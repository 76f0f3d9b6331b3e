"""Says by itself when the ranks of a session have not found each other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import structlog

from phalanx_manager.clock import Clock
from phalanx_manager.core import why
from phalanx_manager.core.model import SessionRow, Snapshot
from phalanx_manager.rpc import looks
from phalanx_manager.store.port import NewEvent, Store
from phalanx_manager.wake import Bell
from phalanx_wire.ids import SessionId

AFTER_S: Final = 60.0
"""Of running; starts of Python programs take up to half of it."""

EVERY_S: Final = 20.0
"""Shorter than what a session runs for before it is looked at: each is seen in time."""

_AT_MOST_LATE_S: Final = 60.0
"""A manager that begins looks back no further: what ran for longer was looked at before."""

_BATCH: Final = 500
_SHORTEST_S: Final = 0.02
KIND: Final = "session.stuck"

log = structlog.get_logger(__name__)


class Stuck:
    """Looks once at each attempt of several ranks, when it has run for a minute."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.bell = Bell()
        self._store = store
        self._clock = clock
        self._link: looks.Link | None = None
        self._wait_s = 0.0
        self._looked: set[tuple[SessionId, int]] = set()

    def attach(self, link: looks.Link) -> None:
        """Take the way to the agents; before that nothing is looked at."""
        self._link = link

    async def turn(self) -> None:
        """Wait until a session has run for long enough, then look at those that have."""
        await self.bell.wait(self._wait_s)
        snapshot = await self._store.load()
        now = self._clock.now()
        self._looked &= {(one.session.id, one.session.attempt) for one in snapshot.rows()}
        due = list(self._due(snapshot))
        for at, row in due:
            if at <= now and self._link is not None:
                self._looked.add((row.session.id, row.session.attempt))
                if (now - at).total_seconds() < _AT_MOST_LATE_S:
                    await self._look(self._link, row)
        later = [(at - now).total_seconds() for at, _ in due if at > now]
        self._wait_s = max(_SHORTEST_S, min([EVERY_S, *later]))

    def _due(self, snapshot: Snapshot) -> Iterator[tuple[datetime, SessionRow]]:
        for row in snapshot.sessions.values():
            session = row.session
            if session.state != "running" or session.started_at is None or len(row.kernels) < 2:
                continue
            batch = session.spec.kind != "interactive"
            if batch and (session.id, session.attempt) not in self._looked:
                yield session.started_at + timedelta(seconds=AFTER_S), row

    async def _look(self, link: looks.Link, row: SessionRow) -> None:
        finding = why.stuck(await looks.see(link, row))
        if finding is None or await self._is_told(row):
            return
        text = f"its ranks do not work together yet, after {AFTER_S:.0f} s: {finding.text}"
        if finding.hint:
            text += f"; {finding.hint}"
        rank = finding.ranks[0] if finding.ranks else None
        event = NewEvent(self._clock.now(), KIND, text, row.session.id, rank)
        await self._store.add_event(event)
        log.info(KIND, session=row.session.id, finding=finding.code, why=finding.text)

    async def _is_told(self, row: SessionRow) -> bool:
        """Tell whether a manager before this one has said it of this attempt."""
        after, began = 0, row.session.started_at
        while batch := await self._store.events(after, row.session.id, _BATCH):
            after = batch[-1].id
            if any(one.kind == KIND and began is not None and one.at >= began for one in batch):
                return True
        return False
