"""What one transaction touches: rows as they will be, folded, written, and told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from phalanx_manager.core import explain
from phalanx_manager.core.model import Kernel, NetworkRow, Session, SessionRow
from phalanx_manager.core.observe import KernelChange
from phalanx_manager.core.session import is_gone, settle
from phalanx_manager.store import rows
from phalanx_manager.store.database import Database
from phalanx_manager.store.port import NewEvent
from phalanx_wire.ids import SessionId
from phalanx_wire.lifecycle import KernelState, advance


class Work:
    """Collects the sessions that a transaction changes; `settle` folds and writes them.

    Attributes:
        touched: sessions as they will be once the transaction is committed.
    """

    def __init__(self, database: Database, live: Mapping[SessionId, SessionRow]) -> None:
        self.touched: dict[SessionId, SessionRow] = {}
        self._database = database
        self._live = live
        self._kernels: dict[SessionId, list[Kernel]] = {}
        self._events: list[Mapping[str, object]] = []

    def row(self, session: SessionId) -> SessionRow | None:
        """Find a session that is alive, as this transaction has it so far."""
        return self.touched.get(session) or self._live.get(session)

    def touch(self, session: Session) -> None:
        """Change a session itself; the fold runs over it afterwards."""
        row = self.row(session.id)
        assert row is not None  # noqa: S101 - whoever touches has found it by `row`
        self.touched[session.id] = SessionRow(session, row.kernels)

    def move(self, change: KernelChange, at: datetime) -> bool:
        """Take a kernel's steps; False when it is not any more where it was seen."""
        row = self.row(change.after.session)
        if row is None:
            return False
        kernels = self._kernels.setdefault(row.session.id, list(row.kernels))
        rank = change.after.rank
        if kernels[rank].id != change.after.id or kernels[rank].state is not change.seen:
            return False
        state = change.seen
        for step, text in zip(change.steps, change.texts, strict=True):
            advance(state, step, change.owner)
            moved = {"id": change.after.id, "seen": int(state), "state": int(step)}
            changed = self._database.run("kernel_step", {**moved, "at": rows.micros(at)})
            assert changed == 1  # noqa: S101 - memory and file are equal, or we have a bug
            self.say(NewEvent(at, f"kernel.{step.name.lower()}", text, row.session.id, rank))
            state = step
        self._database.run("kernel_set", rows.kernel_values(change.after))
        if state is KernelState.REMOVED and change.after.gpus:
            self._database.run("gpu_release", {"kernel": change.after.id})
        kernels[rank] = change.after
        self.touched.setdefault(row.session.id, row)
        return True

    def seat(self, session: SessionId, kernels: Sequence[Kernel]) -> None:
        """Replace all kernels of a session by what the caller has written."""
        row = self.row(session)
        assert row is not None  # noqa: S101 - whoever seats has found it by `row`
        self._kernels[session] = list(kernels)
        self.touched[session] = row

    def set_network(self, session: SessionId, network: NetworkRow) -> None:
        """Write a session's network."""
        row = self.row(session)
        assert row is not None  # noqa: S101 - whoever sets has found it by `row`
        self._database.run("network_set", rows.network_values(network))
        self.touch(replace(row.session, network=network))

    def say(self, event: NewEvent) -> None:
        """Add an event; they are written together at the end."""
        self._events.append(
            {
                "at": rows.micros(event.at),
                "session": event.session,
                "rank": event.rank,
                "kind": event.kind,
                "text": event.text,
            }
        )

    def settle(self, at: datetime) -> None:
        """Fold what was touched, write it, and tell what came of it."""
        for name, row in list(self.touched.items()):
            kernels = tuple(self._kernels.get(name, row.kernels))
            before = self._live[name].session if name in self._live else None
            session = settle(row.session, kernels, at)
            after = SessionRow(session, kernels)
            self.touched[name] = after
            if session != before or is_gone(after):
                self._database.run("session_set", rows.session_values(session, done=is_gone(after)))
            self._tell(before, after, at)
        if self._events:
            self._database.run_many("event_add", self._events)

    def _tell(self, before: Session | None, after: SessionRow, at: datetime) -> None:
        session = after.session
        if session.stop is not None and (before is None or before.stop is None):
            rank = session.stop.rank
            self.say(NewEvent(at, "session.stop", session.stop.text, session.id, rank))
        if before is not None and before.state != session.state:
            text = explain.session_event(after)
            self.say(NewEvent(at, f"session.{session.state}", text, session.id))
