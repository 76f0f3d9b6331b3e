"""The store over any of our databases, with all that lives at hand as values."""

from __future__ import annotations

import asyncio
from collections import ChainMap, Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from phalanx_manager.core import admit, clusters
from phalanx_manager.core.model import Caller, Refusal, SessionRow, Snapshot, Stop, StopCause
from phalanx_manager.core.observe import KernelChange, NetworkChange
from phalanx_manager.core.seat import Placement
from phalanx_manager.core.session import is_gone
from phalanx_manager.store import rows
from phalanx_manager.store.access import Access
from phalanx_manager.store.lookup import Lookup
from phalanx_manager.store.port import (
    AlreadyThere,
    Created,
    NewEvent,
    NewSession,
    SessionFilter,
)
from phalanx_manager.store.tables import Clash, Tables, Writes
from phalanx_manager.store.work import Work
from phalanx_wire.api import ENDED_STATES, EventView
from phalanx_wire.ids import ClusterName, SessionId

_PRUNED: Final = (
    "history_prune",
    "gpus_prune",
    "ports_prune",
    "kernels_prune",
    "networks_prune",
    "attempts_prune",
    "idempotency_prune",
    "session_prune",
)
"""What goes with a session, those that refer to others first."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that is being committed, by its idempotency key."""

    digest: str
    session: SessionId
    done: asyncio.Future[None]


class Ledger(Access):
    """See `port.Store`.

    What lives is kept as values in memory, and only we write the database, so the two are equal.
    `_live` is what is committed; `_ahead` is that with what waits to be committed. Changes are
    made on the latter and shown only by the former.

    Attributes:
        epoch: which lead this is; agents refuse one that is older than what they have seen.
    """

    def __init__(
        self,
        tables: Tables,
        cluster_id: str,
        epoch: int,
        on_change: Callable[[SessionId], None],
    ) -> None:
        super().__init__(tables, lambda: on_change(SessionId("")))
        self.epoch = epoch
        self._cluster_id = cluster_id
        self._on_change = on_change
        self._live: dict[SessionId, SessionRow] = {}
        self._pending: dict[SessionId, SessionRow] = {}
        self._ahead = ChainMap(self._pending, self._live)
        self._lookup = Lookup(tables, self._live)
        self._submitting = asyncio.Lock()
        self._keys: dict[tuple[str, str], _Waiting] = {}
        self._names: dict[tuple[str, str], SessionId] = {}
        self._containers: Counter[str] = Counter()
        self._last_number = 0

    async def fill(self) -> None:
        """Read what is true."""
        live = await self._lookup.alive()
        last = int((await self._tables.read("number_last", {}))[0][0])
        await self.reload_clusters()
        await self.reload_agents()
        # What was given here and came to nothing is not given again.
        self._last_number = max(self._last_number, last)
        self._pending.clear()
        self._live.clear()
        self._live.update(live)
        self._names.clear()
        self._containers.clear()
        self._name(live)

    async def reload(self) -> None:
        """Read again what is true, because a commit may or may not have happened."""
        before = dict(self._live)
        await self.fill()
        for name in before.keys() | self._live.keys():
            if before.get(name) != self._live.get(name):
                self._on_change(name)

    @property
    def cluster_id(self) -> str:
        """See `port.Store`."""
        return self._cluster_id

    # -- sessions

    async def submit(self, request: NewSession) -> Created | AlreadyThere | Refusal:
        """See `port.Store`."""
        user, key = request.caller.user, request.idempotency_key
        async with self._submitting:  # until it is queued: so each sees those before it
            if key is not None:
                before = await self.repeated(user, key, request.body_digest)
                if before is not None:
                    return before
            closed = clusters.closed(self.clusters_in_use(), request.admitted.spec.cluster)
            if closed is not None:
                return closed
            if (user, request.admitted.spec.name) in self._names:
                return _name_taken(request)
            crowded = admit.crowded(self._containers[user], request.admitted, request.most)
            if crowded is not None:
                return crowded
            done = self._submit(request)
        await asyncio.shield(done)
        return Created(request.id)

    async def repeated(self, user: str, key: str, digest: str) -> AlreadyThere | Refusal | None:
        """See `port.Store`."""
        # What is being committed now is not in the database yet, or has just come.
        waiting = self._keys.get((user, key))
        if waiting is not None:
            await asyncio.shield(waiting.done)
            return _repeated(digest, waiting.digest, waiting.session)
        found = await self._tables.read("idempotency_get", {"user": user, "key": key})
        return _repeated(digest, found[0][0], SessionId(found[0][1])) if found else None

    def _submit(self, request: NewSession) -> asyncio.Future[None]:
        user, key = request.caller.user, request.idempotency_key
        work = Work(Writes(), self._ahead)
        self._last_number += 1
        work.add(request, self._last_number)
        if key is None:
            return self._commit(work)
        digest = {"digest": request.body_digest, "session": request.id}
        work.writes.run("idempotency_put", {"user": user, "key": key, **digest})
        done = self._commit(work)
        self._keys[user, key] = _Waiting(request.body_digest, request.id, done)
        done.add_done_callback(lambda _: self._keys.pop((user, key)))
        return done

    async def load(self) -> Snapshot:
        """See `port.Store`."""
        return Snapshot(
            self._cluster_id, dict(self._live), dict(self._agents), self.clusters_in_use()
        )

    async def session(self, ref: str, caller: Caller) -> SessionRow | Refusal | None:
        """See `port.Store`."""
        return await self._lookup.by_ref(ref, caller)

    async def sessions(self, wanted: SessionFilter) -> tuple[SessionRow, ...]:
        """See `port.Store`."""
        return await self._lookup.listing(wanted)

    async def stop(self, session: SessionId, stop: Stop) -> bool:
        """See `port.Store`."""
        changed = False
        async with self._work(stop.at) as work:
            row = work.row(session)
            if row is not None:
                changed = stop.cause is StopCause.USER and work.let_go(row, None)
                if row.session.state not in ENDED_STATES:
                    changed = work.stop(work.row(session) or row, stop)
        return changed or await self._unchanged()

    async def warn(self, session: SessionId, attempt: int, text: str, at: datetime) -> bool:
        """See `port.Store`."""
        row = self._ahead.get(session)
        if row is None or row.session.attempt != attempt or row.session.warned_at is not None:
            return False
        async with self._work(at) as work:
            work.touch(replace(row.session, warned_at=at))
            work.say(NewEvent(at, "session.warned", text, session))
        return True

    async def let_go(self, session: SessionId, attempt: int, at: datetime) -> None:
        """See `port.Store`."""
        async with self._work(at) as work:
            row = work.row(session)
            if row is not None and work.let_go(row, attempt):
                text = f"the containers of attempt {attempt} are kept no longer"
                work.say(NewEvent(at, "session.let_go", text, session))

    async def hold(self, session: SessionId, text: str, at: datetime, *, held: bool) -> bool:
        """See `port.Store`."""
        row = self._ahead.get(session)
        if row is None or row.session.state != "pending" or row.session.held is held:
            return await self._unchanged()
        async with self._work(at) as work:
            work.touch(replace(row.session, held=held))
            work.say(NewEvent(at, "session.held" if held else "session.released", text, session))
        return True

    async def extend(self, session: SessionId, seconds: float, text: str, at: datetime) -> bool:
        """See `port.Store`."""
        row = self._ahead.get(session)
        if row is None or row.session.time_limit_s is None:
            return await self._unchanged()
        if row.session.stop is not None or row.session.state in ENDED_STATES:
            return await self._unchanged()
        async with self._work(at) as work:
            work.touch(replace(row.session, extended_s=row.session.extended_s + seconds))
            work.say(NewEvent(at, "session.extended", text, session))
        return True

    async def attempt(self, session: SessionId, attempt: int) -> SessionRow | None:
        """See `port.Store`."""
        return await self._lookup.attempt(session, attempt)

    async def say(self, session: SessionId, reason: str, at: datetime) -> None:
        """See `port.Store`."""
        row = self._ahead.get(session)
        if row is None or row.session.state != "pending" or row.session.reason == reason:
            return
        async with self._work(at) as work:
            work.touch(replace(row.session, reason=reason))
            work.say(NewEvent(at, "session.waiting", reason, session))

    # -- kernels and networks

    async def place(self, placement: Placement, at: datetime) -> bool:
        """See `port.Store`."""
        try:
            async with self._work(at) as work:
                row = work.row(placement.session)
                if row is None or row.session.state != "pending" or row.session.stop:
                    return False
                if row.session.held or row.session.attempt != placement.attempt:
                    return False
                work.place(row, placement, at)
        except Clash:
            return False  # something is taken: the plan was made on an older view
        return True

    async def record(
        self,
        kernels: Sequence[KernelChange],
        networks: Sequence[NetworkChange],
        at: datetime,
    ) -> bool:
        """See `port.Store`."""
        current = True
        async with self._work(at) as work:
            for change in kernels:
                current = work.move(change, at) and current
            for network in networks:
                if work.attempt(network.session, network.attempt) is None:
                    current = False
                    continue
                work.set_network(network.session, network.attempt, network.after)
        if not current:
            await self._unchanged()  # until what it was changed by can be read by whoever decided
        return current

    # -- events

    async def events(
        self, after: int, session: SessionId | None, limit: int
    ) -> tuple[EventView, ...]:
        """See `port.Store`."""
        values: dict[str, object] = {"after": after, "limit": limit}
        if session is None:
            found = await self._tables.read("events_of_all", values)
        else:
            found = await self._tables.read("events_of_session", {**values, "session": session})
        return tuple(rows.event(row) for row in found)

    async def events_of_cluster(
        self, after: int, cluster: ClusterName, limit: int
    ) -> tuple[EventView, ...]:
        """See `port.Store`."""
        values = {"after": after, "cluster": cluster, "limit": limit}
        return tuple(map(rows.event, await self._tables.read("events_of_cluster", values)))

    async def last_event(self) -> int:
        """See `port.Store`."""
        return int((await self._tables.read("event_last", {}))[0][0])

    async def add_event(self, event: NewEvent) -> None:
        """See `port.Store`."""
        async with self._work(event.at) as work:
            work.say(event)
        if event.session is not None:
            self._on_change(event.session)

    async def prune(self, before: datetime, limit: int) -> int:
        """See `port.Store`."""
        values = {"before": rows.micros(before), "limit": limit}
        sessions = [{"session": row[0]} for row in await self._tables.read("sessions_over", values)]
        events = [{"id": row[0]} for row in await self._tables.read("events_over", values)]
        writes = Writes()
        for name in _PRUNED:
            writes.run_many(name, sessions)
        writes.run_many("event_prune", events)
        if writes.all:
            await asyncio.shield(self._tables.commit(writes, lambda _: None))
        return len(sessions) + len(events)

    # -- inside

    async def _unchanged(self) -> bool:
        """Say that there is nothing to change, if that is so: what another manager has taken in
        since it leads is not in our memory, and only a commit tells that it leads.
        """
        await asyncio.shield(self._tables.commit(Writes(), lambda _: None))
        return False

    @asynccontextmanager
    async def _work(self, at: datetime) -> AsyncIterator[Work]:
        """Make a change, in memory and without waiting; leaving the context commits it."""
        work = Work(Writes(), self._ahead)
        yield work
        work.settle(at)
        if work.writes.all:
            await asyncio.shield(self._commit(work))

    def _commit(self, work: Work) -> asyncio.Future[None]:
        self._pending.update(work.touched)
        self._name(work.touched)
        return self._tables.commit(work.writes, lambda well: self._settled(work, well=well))

    def _has_sessions(self, cluster: ClusterName) -> bool:
        """See `Clusters`: also those that wait to be committed."""
        return any(row.session.cluster == cluster for row in self._ahead.values())

    def _settled(self, work: Work, *, well: bool) -> None:
        """Take over what a commit has made true, and tell who listens."""
        for name, row in work.touched.items():
            if self._pending.get(name) is row:
                del self._pending[name]
            if well and is_gone(row):
                self._live.pop(name, None)
            elif well:
                self._live[name] = row
        if not well:
            self._names.clear()
            self._containers.clear()
            self._name(self._ahead)
            return
        for name in work.touched:
            self._on_change(name)

    def _name(self, touched: Mapping[SessionId, SessionRow]) -> None:
        """Note whose names are taken, and how many containers each user's sessions have."""
        for row in touched.values():
            session = row.session
            taken = (session.user, session.name)
            known = self._names.get(taken) == session.id
            if session.state not in ENDED_STATES and not known:
                self._names[taken] = session.id
                self._containers[session.user] += len(row.kernels)
            elif session.state in ENDED_STATES and known:
                del self._names[taken]
                self._containers[session.user] -= len(row.kernels)


def _repeated(asked: str, digest: str, session: SessionId) -> AlreadyThere | Refusal:
    if digest == asked:
        return AlreadyThere(session)
    return Refusal(
        "idempotency_mismatch",
        409,
        "the idempotency key was used before for another request",
        hint="use a new key for a new request",
    )


def _name_taken(request: NewSession) -> Refusal:
    return Refusal(
        "name_taken",
        409,
        f"a session named {request.admitted.spec.name} is alive",
        "name",
        "choose another name, or stop that session first",
    )
