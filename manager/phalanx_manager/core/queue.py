"""In which order waiting sessions get their turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from phalanx_manager.core.model import SessionRow, Snapshot
from phalanx_wire.ids import ClusterName


def waiting(snapshot: Snapshot, now: datetime) -> Mapping[ClusterName, Sequence[SessionRow]]:
    """List the queue of each cluster: priority first, then arrival. A next attempt has the
    arrival of its session; who is held or pauses between attempts gets no turn.
    """
    queues: dict[ClusterName, list[SessionRow]] = {}
    for row in snapshot.sessions.values():
        if row.session.state == "pending" and not row.session.held and not _pauses(row, now):
            queues.setdefault(row.session.cluster, []).append(row)
    for queue in queues.values():
        queue.sort(
            key=lambda row: (-row.session.spec.priority, row.session.created_at, row.session.id)
        )
    return queues


def next_due(snapshot: Snapshot, now: datetime) -> datetime | None:
    """Find when the first of those who pause comes into the queue."""
    pausing = (row.session for row in snapshot.sessions.values() if _pauses(row, now))
    return min((session.not_before or now for session in pausing), default=None)


def _pauses(row: SessionRow, now: datetime) -> bool:
    session = row.session
    later = session.not_before is not None and session.not_before > now
    return session.state == "pending" and later


def behind(ahead: Sequence[SessionRow]) -> str:
    """Say for whom a session waits that is not the first."""
    first = ahead[0].session
    if len(ahead) == 1:
        return f"waits its turn behind session {first.name}"
    return f"waits its turn behind {len(ahead)} sessions; the first is {first.name}"
