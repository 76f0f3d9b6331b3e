"""Signals to commands before they are stopped: their time is nearly over, their host is drained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from phalanx_manager.core import warning
from phalanx_manager.core.model import AgentRecord, Kernel, Session, SessionRow, Snapshot
from phalanx_manager.core.session import idles
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.stream import Recipients


@dataclass(frozen=True, slots=True)
class Notice:
    """A signal for every command of an attempt.

    Attributes:
        agent: whose drain it is for; None for the session's own time limit.
        to: who hears it.
    """

    session: SessionId
    attempt: int
    number: int
    text: str
    agent: AgentId | None = None
    to: Recipients = "command"


def notices(snapshot: Snapshot, now: datetime) -> Iterator[tuple[datetime, Notice]]:
    """Find the signals that have not been sent, each with the moment that it is due."""
    for row in snapshot.sessions.values():
        yield from _before_limit(row)
    for record in snapshot.agents.values():
        yield from _before_drain(snapshot, record, now)


def hearers(row: SessionRow, to: Recipients = "command") -> tuple[Kernel, ...]:
    """Find the kernels that have somebody who takes signals now; any may have tasks."""
    return tuple(
        kernel
        for kernel in row.kernels
        if kernel.state is KernelState.RUNNING and recipients(row.session, kernel, to) is not None
    )


def recipients(session: Session, kernel: Kernel, to: Recipients) -> Recipients | None:
    """Tell who of a kernel is meant; None is nobody: one that idles has no command."""
    if not idles(session, kernel.rank):
        return to
    return None if to == "command" else "tasks"


def warned(session: Session, *, batch: bool = False) -> Recipients:
    """Tell who of a session hears warnings: in a SLURM job the tasks, which know what to do."""
    return "tasks" if session.spec.env_profile == "slurm" and not batch else "command"


def _before_limit(row: SessionRow) -> Iterator[tuple[datetime, Notice]]:
    session = row.session
    spec = session.spec
    wish = warning.parse(spec.warn_signal) if spec.warn_signal is not None else None
    limit_s = session.time_limit_s
    if wish is None or limit_s is None or session.started_at is None:
        return
    if session.warned_at is not None or session.stop is not None or session.state in ENDED_STATES:
        return
    text = f"{warning.signal_name(wish.number)} sent, {wish.before_s:g} s before its time limit"
    at = session.started_at + timedelta(seconds=limit_s - wish.before_s)
    to = warned(session, batch=wish.batch)
    yield at, Notice(session.id, session.attempt, wish.number, text, to=to)


def _before_drain(
    snapshot: Snapshot, record: AgentRecord, now: datetime
) -> Iterator[tuple[datetime, Notice]]:
    drain = record.drain
    if drain is None or not drain.signal or drain.signalled:
        return
    text = f"{warning.signal_name(drain.signal)} sent: agent {record.name} is drained"
    for row in snapshot.sessions.values():
        session = row.session
        to = warned(session)
        if session.stop is None and any(k.agent == record.name for k in hearers(row, to)):
            yield now, Notice(session.id, session.attempt, drain.signal, text, record.name, to)
