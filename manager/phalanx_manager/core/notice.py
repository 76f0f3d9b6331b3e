"""Signals to commands before they are stopped: their time is nearly over, their host is drained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from phalanx_manager.core import warning
from phalanx_manager.core.model import AgentRecord, Kernel, SessionRow, Snapshot
from phalanx_manager.core.session import idles
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.lifecycle import KernelState


@dataclass(frozen=True, slots=True)
class Notice:
    """A signal for every command of an attempt.

    Attributes:
        agent: whose drain it is for; None for the session's own time limit.
    """

    session: SessionId
    attempt: int
    number: int
    text: str
    agent: AgentId | None = None


def notices(snapshot: Snapshot, now: datetime) -> Iterator[tuple[datetime, Notice]]:
    """Find the signals that have not been sent, each with the moment that it is due."""
    for row in snapshot.sessions.values():
        yield from _before_limit(row)
    for record in snapshot.agents.values():
        yield from _before_drain(snapshot, record, now)


def hearers(row: SessionRow) -> tuple[Kernel, ...]:
    """Find the kernels whose command takes signals now."""
    return tuple(
        kernel
        for kernel in row.kernels
        if kernel.state is KernelState.RUNNING and not idles(row.session, kernel.rank)
    )


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
    yield at, Notice(session.id, session.attempt, wish.number, text)


def _before_drain(
    snapshot: Snapshot, record: AgentRecord, now: datetime
) -> Iterator[tuple[datetime, Notice]]:
    drain = record.drain
    if drain is None or not drain.signal or drain.signalled:
        return
    text = f"{warning.signal_name(drain.signal)} sent: agent {record.name} is drained"
    for row in snapshot.sessions.values():
        if row.session.stop is None and any(k.agent == record.name for k in hearers(row)):
            session = row.session
            yield now, Notice(session.id, session.attempt, drain.signal, text, record.name)
