"""What one transaction touches: rows as they will be, folded, written, and told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from phalanx_manager.core import attempts, explain, folders
from phalanx_manager.core.model import (
    Kernel,
    NetworkRow,
    Session,
    SessionRow,
    Stop,
    StopCause,
    Then,
)
from phalanx_manager.core.observe import KernelChange, moved
from phalanx_manager.core.seat import Placement
from phalanx_manager.core.session import is_gone, settle
from phalanx_manager.store import rows
from phalanx_manager.store.port import NewEvent, NewSession
from phalanx_manager.store.tables import Writes
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.ids import ClusterName, SessionId, kernel_id, split_kernel_id
from phalanx_wire.lifecycle import KernelState, Owner, advance

_LENIENT: Final = frozenset({StopCause.REQUEUE, StopCause.DRAIN})


class Work:
    """Collects the sessions that a transaction changes; `settle` folds and writes them.

    Attributes:
        touched: sessions as they will be once the transaction is committed.
        writes: what makes the database say so.
    """

    def __init__(self, writes: Writes, live: Mapping[SessionId, SessionRow]) -> None:
        self.touched: dict[SessionId, SessionRow] = {}
        self.writes = writes
        self._live = live
        self._kernels: dict[tuple[SessionId, int], list[Kernel]] = {}
        self._events: list[Mapping[str, object]] = []

    def add(self, request: NewSession, number: int) -> None:
        """Write a new session and its kernels, all PENDING."""
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
            number=number,
            held=spec.hold,
        )
        self.writes.run("session_add", rows.new_session(session))
        if session.held:
            self.writes.run("session_set", rows.session_values(session, done=False))
        self.writes.run("meta_set", {"key": "last_number", "value": str(number)})
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
        self.writes.run_many("kernel_add", map(rows.new_kernel, kernels))
        many = f" of {len(kernels)} containers" if len(kernels) > 1 else ""
        text = f"{session.user} asked for a {spec.kind} session{many}"
        self.say(NewEvent(request.at, "session.submitted", text, session.id))
        self.settle(request.at)
        self.touched[session.id] = SessionRow(session, kernels)

    def row(self, session: SessionId) -> SessionRow | None:
        """Find a session that is alive, as this transaction has it so far."""
        return self.touched.get(session) or self._live.get(session)

    def attempt(self, session: SessionId, attempt: int) -> SessionRow | None:
        """Find one attempt of a session, the current one or one that holds something still."""
        row = self.row(session)
        return None if row is None else row.of(attempt)

    def touch(self, session: Session) -> None:
        """Change a session itself; the fold runs over it afterwards."""
        row = self.row(session.id)
        assert row is not None  # noqa: S101 - whoever touches has found it by `row`
        self.touched[session.id] = replace(row, session=session)

    def stop(self, row: SessionRow, stop: Stop) -> bool:
        """Set a stop cause, or add to one that was set before; False when it adds nothing."""
        before = row.session.stop
        if before is not None:
            return self._hurry(row.session, before, stop)
        self.touch(replace(row.session, stop=stop))
        for kernel in row.kernels:
            if kernel.state is KernelState.PENDING:
                after = replace(kernel, cause="cancelled", message=stop.text)
                step = (KernelState.STOPPED,)
                after = moved(after, step, stop.at)
                text = explain.kernel_event(after, KernelState.STOPPED)
                change = KernelChange(kernel.state, step, Owner.SCHEDULER, after, (text,))
                self.move(change, stop.at)
        return True

    def _hurry(self, session: Session, before: Stop, again: Stop) -> bool:
        """Let a later stop shorten the grace and say what comes then. The first cause stays, but
        where it meant to go on and the user wants an end.
        """
        grace_s = session.spec.grace_s if before.grace_s is None else before.grace_s
        shorter = again.grace_s is not None and again.grace_s < grace_s
        wish: Then = "end" if again.cause is StopCause.USER else again.then
        then: Then = "end" if before.then == "end" else wish or before.then
        first = again if again.cause is StopCause.USER and before.cause in _LENIENT else before
        after = replace(first, grace_s=again.grace_s if shorter else before.grace_s, then=then)
        if after == before:
            return False
        self.touch(replace(session, stop=after))
        if after.then != before.then:
            self.say(NewEvent(again.at, "session.stop", again.text, session.id))
        return True

    def move(self, change: KernelChange, at: datetime) -> bool:
        """Take a kernel's steps; False when it is not any more where it was seen."""
        session, attempt, rank = split_kernel_id(change.after.id)
        row = self.attempt(session, attempt)
        if row is None:
            return False
        kernels = self._kernels.setdefault((session, attempt), list(row.kernels))
        if kernels[rank].state is not change.seen:
            return False
        state = change.seen
        for step, text in zip(change.steps, change.texts, strict=True):
            advance(state, step, change.owner)
            moved = {"id": change.after.id, "seen": int(state), "state": int(step)}
            self.writes.run("kernel_step", {**moved, "at": rows.micros(at)}, exactly=1)
            self.say(NewEvent(at, f"kernel.{step.name.lower()}", text, session, rank))
            state = step
        self.writes.run("kernel_set", rows.kernel_values(change.after))
        if state is KernelState.REMOVED and change.after.gpus:
            self.writes.run("gpu_release", {"kernel": change.after.id})
        if state is KernelState.REMOVED and change.after.ssh_port:
            self.writes.run("port_release", {"kernel": change.after.id})
        kernels[rank] = change.after
        whole = self.row(session)
        assert whole is not None  # noqa: S101 - it has this attempt
        self.touched.setdefault(session, whole)
        return True

    def place(self, row: SessionRow, placement: Placement, at: datetime) -> None:
        """Bind a whole gang."""
        self.touch(replace(row.session, network=placement.network))
        seats = placement.seats
        self.writes.run_many("kernel_seat", map(rows.seat_values, seats), exactly=len(row.kernels))
        self.writes.run_many(
            "gpu_hold",
            [
                {"agent": seat.agent, "gpu": gpu, "kernel": seat.kernel}
                for seat in seats
                for gpu in seat.gpus
            ],
        )
        self.writes.run_many(
            "port_hold",
            [
                {"agent": seat.agent, "port": port, "kernel": seat.kernel}
                for seat in seats
                for port in seat.ports
            ],
        )
        network = rows.network_values(placement.network)
        owner = {"session": placement.session, "attempt": placement.attempt}
        self.writes.run("network_add", {**network, **owner})
        for kernel in row.kernels:
            after = moved(seats[kernel.rank].of(kernel), (KernelState.ASSIGNED,), at)
            texts = (explain.kernel_event(after, KernelState.ASSIGNED),)
            step = (KernelState.ASSIGNED,)
            self.move(KernelChange(kernel.state, step, Owner.SCHEDULER, after, texts), at)

    def let_go(self, row: SessionRow, attempt: int | None) -> bool:
        """Keep containers no longer, of one attempt or of all; False when none were kept."""

        def let_go(one: SessionRow) -> SessionRow:
            if attempt not in (None, one.session.attempt):
                return one
            return replace(one, session=replace(one.session, kept_until=None))

        for past in row.past:
            if past != let_go(past):
                key = {"session": past.session.id, "attempt": past.session.attempt}
                self.writes.run("attempt_let_go", key)
        after = replace(let_go(row), past=tuple(let_go(past) for past in row.past))
        if after == row:
            return False
        self.touched[row.session.id] = after
        return True

    def set_network(self, session: SessionId, attempt: int, network: NetworkRow) -> None:
        """Write the network of an attempt."""
        row = self.row(session)
        assert row is not None  # noqa: S101 - whoever sets has found it by `attempt`
        self.writes.run("network_set", rows.network_values(network))

        def with_network(one: SessionRow) -> SessionRow:
            if one.session.attempt != attempt:
                return one
            return replace(one, session=replace(one.session, network=network))

        past = tuple(with_network(one) for one in row.past)
        self.touched[session] = replace(with_network(row), past=past)

    def say(self, event: NewEvent) -> None:
        """Add an event; they are written together at the end."""
        self._events.append(
            {
                "at": rows.micros(event.at),
                "session": event.session,
                "rank": event.rank,
                "kind": event.kind,
                "text": event.text,
                "cluster": event.cluster,
            }
        )

    def settle(self, at: datetime) -> None:
        """Fold what was touched, write it, and tell what came of it."""
        for name, row in list(self.touched.items()):
            before = self._live[name].session if name in self._live else None
            after = self._folded(before, row, at)
            self.touched[name] = after
            gone = is_gone(after)
            if after.session != before or gone:
                self.writes.run("session_set", rows.session_values(after.session, done=gone))
        if self._events:
            self.writes.run_many("event_add", self._events)

    def _folded(self, before: Session | None, row: SessionRow, at: datetime) -> SessionRow:
        kernels = self._drafts(row)
        session = settle(row.session, kernels, at)
        ends = session.state in ENDED_STATES and row.session.state not in ENDED_STATES
        if ends:
            session = attempts.kept(session, at)
        onward = attempts.onward(session, kernels, at) if ends else session
        if onward.attempt == session.attempt:
            after = SessionRow(onward, kernels, tuple(self._left(row.past)))
            self._tell(before, after, at)
            if row.session.started_at is None and onward.started_at is not None:
                self._tell_folders(after, at)
            return after
        ended = SessionRow(session, kernels)
        self._tell_stop(before, session, at)
        text = explain.requeue_event(session, onward)
        self.say(NewEvent(at, "session.requeued", text, session.id, session.failed_rank))
        return self._next(ended, onward, tuple(self._left(row.past)), at)

    def _next(
        self, ended: SessionRow, onward: Session, past: tuple[SessionRow, ...], at: datetime
    ) -> SessionRow:
        """Put an attempt that has ended away, and write the kernels of the next one."""
        gone = is_gone(ended)
        self.writes.run("attempt_add", rows.attempt_values(ended.session, done=gone))
        kernels = attempts.fresh(onward.id, onward.attempt, ended.kernels, at)
        self.writes.run_many("kernel_add", [rows.new_kernel(kernel) for kernel in kernels])
        # What an attempt was told to do is over: its row says how it ended.
        left = replace(ended, session=replace(ended.session, stop=None))
        return SessionRow(onward, kernels, past if gone else (*past, left))

    def _left(self, past: Sequence[SessionRow]) -> Iterator[SessionRow]:
        """Pick the earlier attempts of which something is left."""
        for row in past:
            after = replace(row, kernels=self._drafts(row))
            if is_gone(after):
                key = {"session": row.session.id, "attempt": row.session.attempt}
                self.writes.run("attempt_done", key)
            else:
                yield after

    def _drafts(self, row: SessionRow) -> tuple[Kernel, ...]:
        """Find an attempt's kernels as this transaction has them."""
        return tuple(self._kernels.get((row.session.id, row.session.attempt), row.kernels))

    def _tell(self, before: Session | None, after: SessionRow, at: datetime) -> None:
        session = after.session
        self._tell_stop(before, session, at)
        if before is not None and before.state != session.state:
            text = explain.session_event(after)
            self.say(NewEvent(at, f"session.{session.state}", text, session.id))

    def _tell_folders(self, row: SessionRow, at: datetime) -> None:
        """Say what the hosts of an attempt do not share, now that all have told what they have."""
        for text in folders.unshared(row):
            self.say(NewEvent(at, "session.unshared", text, row.session.id))

    def _tell_stop(self, before: Session | None, session: Session, at: datetime) -> None:
        if session.stop is not None and (before is None or before.stop is None):
            rank = session.stop.rank
            self.say(NewEvent(at, "session.stop", session.stop.text, session.id, rank))
