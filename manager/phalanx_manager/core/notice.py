"""Signals to commands before they are stopped: their time is nearly over, their host is drained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from phalanx_manager.core import warning
from phalanx_manager.core.model import AgentRecord, Drain, Kernel, Session, SessionRow, Snapshot
from phalanx_manager.core.session import idles
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.notice import Notice
from phalanx_wire.stream import Recipients


@dataclass(frozen=True, slots=True)
class Decision:
    """That every command of an attempt is sent a signal from now on.

    Attributes:
        agent: whose drain it is for; None for the session's own time limit.
    """

    session: SessionId
    attempt: int
    text: str
    agent: AgentId | None = None


def decisions(snapshot: Snapshot, now: datetime) -> Iterator[tuple[datetime, Decision]]:
    """Find the signals that are not decided yet, each with the moment that it is due."""
    for row in snapshot.sessions.values():
        yield from _before_limit(row)
    for record in snapshot.agents.values():
        yield from _before_drain(snapshot, record, now)


def drains(snapshot: Snapshot) -> dict[AgentId, Drain]:
    """Find the drains whose sessions are told."""
    return {
        name: record.drain
        for name, record in snapshot.agents.items()
        if record.drain is not None and record.drain.signal
    }


def owed(row: SessionRow, kernel: Kernel, drained: Mapping[AgentId, Drain]) -> tuple[Notice, ...]:
    """Say which signals a kernel's command shall hear, if it has not: this is all that there is of
    them, so that no manager can lose one, and the agent sends each once. What began to run after a
    drain knows of that.
    """
    session = row.session
    if kernel.state is not KernelState.RUNNING or session.stop is not None:
        return ()
    found: list[tuple[str, int, Recipients]] = []
    wish = _wish(session) if session.warned_at is not None else None
    if wish is not None:
        found.append(("limit", wish.number, warned(session, batch=wish.batch)))
    to = warned(session)
    for agent in sorted(
        drained.keys() & {one.agent for one in hearers(row, to)} if drained else ()
    ):
        drain = drained[agent]
        if session.started_at is not None and session.started_at <= drain.at:
            found.append((f"drain of {agent} at {drain.at.isoformat()}", drain.signal, to))
    return tuple(
        Notice(name, number, tasks=to == "tasks")
        for name, number, to in found
        if recipients(session, kernel, to) is not None
    )


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


def _wish(session: Session) -> warning.Wish | None:
    text = session.spec.warn_signal
    return None if text is None else warning.parse(text)


def _before_limit(row: SessionRow) -> Iterator[tuple[datetime, Decision]]:
    session = row.session
    wish = _wish(session)
    limit_s = session.time_limit_s
    if wish is None or limit_s is None or session.started_at is None:
        return
    if session.warned_at is not None or session.stop is not None or session.state in ENDED_STATES:
        return
    text = f"{warning.signal_name(wish.number)} sent, {wish.before_s:g} s before its time limit"
    at = session.started_at + timedelta(seconds=limit_s - wish.before_s)
    yield at, Decision(session.id, session.attempt, text)


def _before_drain(
    snapshot: Snapshot, record: AgentRecord, now: datetime
) -> Iterator[tuple[datetime, Decision]]:
    drain = record.drain
    if drain is None or not drain.signal or drain.signalled:
        return
    text = f"{warning.signal_name(drain.signal)} sent: agent {record.name} is drained"
    for row in snapshot.sessions.values():
        session = row.session
        to = warned(session)
        if session.stop is None and any(k.agent == record.name for k in hearers(row, to)):
            yield now, Decision(session.id, session.attempt, text, record.name)
