"""The database of one manager: SQLite, used in place on the loop, with all that lives at hand."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from phalanx_manager.core.explain import kernel_event
from phalanx_manager.core.model import (
    Caller,
    Kernel,
    NetworkRow,
    Refusal,
    Session,
    SessionRow,
    Snapshot,
    Stop,
)
from phalanx_manager.core.observe import KernelChange, NetworkChange, moved
from phalanx_manager.core.seat import Placement
from phalanx_manager.core.session import is_gone
from phalanx_manager.store import rows
from phalanx_manager.store.access import Access
from phalanx_manager.store.database import Database
from phalanx_manager.store.port import (
    AlreadyThere,
    Created,
    NewEvent,
    NewSession,
    SessionFilter,
)
from phalanx_manager.store.work import Work
from phalanx_wire.api import ENDED_STATES, EventView
from phalanx_wire.ids import ClusterName, SessionId, kernel_id
from phalanx_wire.lifecycle import KernelState, Owner

KEEP_EVENTS: Final = timedelta(days=90)

_REF: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class _Stale(Exception):  # noqa: N818 - an outcome inside this file, not a fault
    """A plan was made on an older view: nothing of it may be written."""


class SqliteStore(Access):
    """See `port.Store`.

    What lives is also kept as values in memory, changed only after a commit: nobody else writes
    the file (it is locked), so the two are equal.
    """

    def __init__(
        self, database: Database, cluster_id: str, on_change: Callable[[SessionId], None]
    ) -> None:
        super().__init__(database, lambda: on_change(SessionId("")))
        self._cluster_id = cluster_id
        self._on_change = on_change
        self._live: dict[SessionId, SessionRow] = {}
        for row in database.rows("session_columns", {}, "WHERE done = 0 ORDER BY created_at, id"):
            found = self._full(row)
            self._live[found.session.id] = found

    @classmethod
    def open(
        cls,
        path: str,
        now: datetime,
        fresh_cluster_id: str,
        on_change: Callable[[SessionId], None] = lambda _: None,
    ) -> SqliteStore:
        """Open the file, or `database.MEMORY`; a new one gets the given cluster id.

        `on_change` hears of every session that a commit has changed, and an empty id when
        something happened to an agent.

        Raises:
            Unavailable: see `Database.open`.
        """
        database = Database.open(path)
        with database.transaction():
            found = database.rows("meta_get", {"key": "cluster_id"})
            if not found:
                database.run("meta_put", {"key": "cluster_id", "value": fresh_cluster_id})
            database.run("events_forget", {"before": rows.micros(now - KEEP_EVENTS)})
        return cls(database, found[0][0] if found else fresh_cluster_id, on_change)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def cluster_id(self) -> str:
        """See `port.Store`."""
        return self._cluster_id

    # -- sessions

    async def submit(self, request: NewSession) -> Created | AlreadyThere | Refusal:
        """See `port.Store`."""
        user, spec = request.caller.user, request.admitted.spec
        key = request.idempotency_key
        with self._database.transaction():
            if key is not None:
                before = self._database.rows("idempotency_get", {"user": user, "key": key})
                if before:
                    return self._repeated(request, before[0][0], before[0][1])
            if self._database.rows("session_live_name", {"user": user, "name": spec.name}):
                return Refusal(
                    "name_taken",
                    409,
                    f"a session named {spec.name} is alive",
                    "name",
                    "choose another name, or stop that session first",
                )
            row = self._add_session(request)
            if key is not None:
                digest = {"digest": request.body_digest, "session": request.id}
                self._database.run("idempotency_put", {"user": user, "key": key, **digest})
        self._publish({request.id: row})
        return Created(request.id)

    def _repeated(self, request: NewSession, digest: str, session: str) -> AlreadyThere | Refusal:
        if digest == request.body_digest:
            return AlreadyThere(SessionId(session))
        return Refusal(
            "idempotency_mismatch",
            409,
            "the idempotency key was used before for another request",
            hint="use a new key for a new request",
        )

    def _add_session(self, request: NewSession) -> SessionRow:
        spec = request.admitted.spec
        session = Session(
            id=request.id,
            name=spec.name or request.id,
            user=request.caller.user,
            cluster=ClusterName(spec.cluster),
            spec=spec,
            state="pending",
            attempt=1,
            created_at=request.at,
            warnings=request.admitted.warnings,
        )
        self._database.run(
            "session_add",
            {
                "id": session.id,
                "name": session.name,
                "user": session.user,
                "cluster": session.cluster,
                "spec": rows.spell_spec(spec),
                "created_at": rows.micros(request.at),
                "warnings": rows.spell_texts(session.warnings),
            },
        )
        kernels = tuple(
            Kernel(
                id=kernel_id(request.id, 1, plan.rank),
                session=request.id,
                rank=plan.rank,
                role=plan.role,
                replica=plan.replica,
                host_name=plan.host_name,
                slots=plan.slots,
                shm_bytes=plan.shm_bytes,
                state=KernelState.PENDING,
                state_at=request.at,
                gpu_model=plan.gpu_model,
            )
            for plan in request.admitted.kernels
        )
        self._database.run_many("kernel_add", [rows.new_kernel(kernel) for kernel in kernels])
        many = f" of {len(kernels)} containers" if len(kernels) > 1 else ""
        text = f"{session.user} asked for a {spec.kind} session{many}"
        work = Work(self._database, self._live)
        work.say(NewEvent(request.at, "session.submitted", text, session.id))
        work.settle(request.at)
        return SessionRow(session, kernels)

    async def load(self) -> Snapshot:
        """See `port.Store`."""
        return Snapshot(self._cluster_id, dict(self._live), dict(self._agents))

    async def session(self, ref: str, caller: Caller) -> SessionRow | Refusal | None:
        """See `port.Store`."""
        if not _REF.fullmatch(ref):
            return None
        who = {"ref": ref, "user": None if caller.scope == "admin" else caller.user}
        mine = "(:user IS NULL OR user = :user)"
        for test in ("id = :ref", "name = :ref"):
            tail = f"WHERE {test} AND {mine} ORDER BY created_at DESC, id DESC LIMIT 1"
            found = self._database.rows("session_columns", who, tail)
            if found:
                return self._full(found[0])
        return self._by_prefix(who, mine)

    def _by_prefix(self, who: dict[str, str | None], mine: str) -> SessionRow | Refusal | None:
        # A reference has neither % nor _, so it can stand in a pattern as it is.
        tail = f"WHERE (id LIKE :ref || '%' OR name LIKE :ref || '%') AND {mine}"
        found = self._database.rows(
            "session_columns", who, f"{tail} ORDER BY created_at DESC, id DESC LIMIT 50"
        )
        alive = [row for row in found if row[5] not in ENDED_STATES]
        candidates = alive or found
        names = dict.fromkeys(str(row[1]) for row in candidates)
        if not candidates:
            return None
        if len(names) > 1:
            return Refusal(
                "ambiguous",
                409,
                f"{who['ref']} fits several sessions: {', '.join(list(names)[:8])}",
                hint="write more of the name or the id",
            )
        return self._full(candidates[0])

    async def sessions(self, wanted: SessionFilter) -> tuple[SessionRow, ...]:
        """See `port.Store`."""
        states = wanted.states or ()
        values = {"user": wanted.user, "limit": wanted.limit}
        values |= {f"state{number}": state for number, state in enumerate(states)}
        test = ""
        if states:
            test = f"AND state IN ({', '.join(f':state{number}' for number in range(len(states)))})"
        elif not wanted.ended_too:
            test = "AND state NOT IN ('succeeded', 'failed', 'cancelled', 'timeout')"
        tail = f"WHERE (:user IS NULL OR user = :user) {test}"
        found = self._database.rows(
            "session_columns", values, f"{tail} ORDER BY created_at DESC, id DESC LIMIT :limit"
        )
        return tuple(self._full(row) for row in found)

    async def stop(self, session: SessionId, stop: Stop) -> bool:
        """See `port.Store`."""
        with self._work(stop.at) as work:
            row = work.row(session)
            if row is None or row.session.state in ENDED_STATES:
                return False
            return work.stop(row, stop)

    async def say(self, session: SessionId, reason: str, at: datetime) -> None:
        """See `port.Store`."""
        row = self._live.get(session)
        if row is None or row.session.state != "pending" or row.session.reason == reason:
            return
        with self._work(at) as work:
            work.touch(replace(row.session, reason=reason))
            work.say(NewEvent(at, "session.waiting", reason, session))

    # -- kernels and networks

    async def place(self, placement: Placement, at: datetime) -> bool:
        """See `port.Store`."""
        try:
            with self._work(at) as work:
                row = work.row(placement.session)
                if row is None or row.session.state != "pending" or row.session.stop:
                    return False
                if row.session.attempt != placement.attempt:
                    return False
                work.touch(replace(row.session, network=placement.network))
                self._seat(row, placement)
                network = rows.network_values(placement.network)
                owner = {"session": placement.session, "attempt": placement.attempt}
                self._database.run("network_add", {**network, **owner})
                for kernel in row.kernels:
                    seat = placement.seats[kernel.rank]
                    after = moved(seat.of(kernel), (KernelState.ASSIGNED,), at)
                    texts = (kernel_event(after, KernelState.ASSIGNED),)
                    step = (KernelState.ASSIGNED,)
                    work.move(KernelChange(kernel.state, step, Owner.SCHEDULER, after, texts), at)
        except _Stale:
            return False
        except sqlite3.IntegrityError as error:
            if "UNIQUE" not in str(error):
                raise
            return False  # some device, port or subnet is taken: planned on an older view
        return True

    def _seat(self, row: SessionRow, placement: Placement) -> None:
        seats = [rows.seat_values(seat) for seat in placement.seats]
        if self._database.run_many("kernel_seat", seats) != len(row.kernels):
            raise _Stale
        holds = [
            {"agent": seat.agent, "gpu": gpu, "kernel": seat.kernel}
            for seat in placement.seats
            for gpu in seat.gpus
        ]
        self._database.run_many("gpu_hold", holds)
        ports = [
            {"agent": seat.agent, "port": port, "kernel": seat.kernel}
            for seat in placement.seats
            for port in seat.ports
        ]
        self._database.run_many("port_hold", ports)

    async def record(
        self,
        kernels: Sequence[KernelChange],
        networks: Sequence[NetworkChange],
        at: datetime,
    ) -> bool:
        """See `port.Store`."""
        current = True
        with self._work(at) as work:
            for change in kernels:
                current = work.move(change, at) and current
            for network in networks:
                if work.attempt(network.session, network.attempt) is None:
                    current = False
                    continue
                work.set_network(network.session, network.attempt, network.after)
        return current

    # -- events

    async def events(
        self, after: int, session: SessionId | None, limit: int
    ) -> tuple[EventView, ...]:
        """See `port.Store`."""
        values = {"after": after, "session": session, "limit": limit}
        name = "events_of_all" if session is None else "events_of_session"
        return tuple(rows.event(row) for row in self._database.rows(name, values))

    async def last_event(self) -> int:
        """See `port.Store`."""
        return int(self._database.rows("event_last", {})[0][0])

    async def add_event(self, event: NewEvent) -> None:
        """See `port.Store`."""
        with self._work(event.at) as work:
            work.say(event)
        if event.session is not None:
            self._on_change(event.session)

    # -- inside

    @contextmanager
    def _work(self, at: datetime) -> Iterator[Work]:
        work = Work(self._database, self._live)
        with self._database.transaction():
            yield work
            work.settle(at)
        self._publish(work.touched)

    def _publish(self, touched: dict[SessionId, SessionRow]) -> None:
        """Take over what a commit has made true, and tell who listens."""
        for name, row in touched.items():
            if is_gone(row):
                self._live.pop(name, None)
            else:
                self._live[name] = row
        for name in touched:
            self._on_change(name)

    def _full(self, row: rows.Row) -> SessionRow:
        """Read a session with its network, its kernels, and what is left of earlier attempts."""
        live = self._live.get(row[0])
        if live is not None:
            return live
        network, kernels = self._attempt(row[0], row[6])
        session = rows.session(row, network)
        past: list[SessionRow] = []
        for ended in self._database.rows("attempts_of", {"session": session.id}):
            if not ended[7]:
                network, left = self._attempt(session.id, ended[0])
                past.append(SessionRow(rows.attempt(session, ended, network), left))
        return SessionRow(session, kernels, tuple(past))

    def _attempt(
        self, session: SessionId, attempt: int
    ) -> tuple[NetworkRow | None, tuple[Kernel, ...]]:
        key = {"session": session, "attempt": attempt}
        networks = self._database.rows("network_of", key)
        kernels = tuple(rows.kernel(found) for found in self._database.rows("kernels_of", key))
        return rows.network(networks[0]) if networks else None, kernels
