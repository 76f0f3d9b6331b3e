"""In which order waiting sessions get their turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phalanx_manager.core.model import SessionRow, Snapshot
from phalanx_wire.ids import ClusterName


def waiting(snapshot: Snapshot) -> Mapping[ClusterName, Sequence[SessionRow]]:
    """List the queue of each cluster: priority first, then arrival."""
    queues: dict[ClusterName, list[SessionRow]] = {}
    for row in snapshot.sessions.values():
        if row.session.state == "pending":
            queues.setdefault(row.session.cluster, []).append(row)
    for queue in queues.values():
        queue.sort(
            key=lambda row: (-row.session.spec.priority, row.session.created_at, row.session.id)
        )
    return queues


def behind(ahead: Sequence[SessionRow]) -> str:
    """Say for whom a session waits that is not the first."""
    first = ahead[0].session
    if len(ahead) == 1:
        return f"waits its turn behind session {first.name}"
    return f"waits its turn behind {len(ahead)} sessions; the first is {first.name}"
