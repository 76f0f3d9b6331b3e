"""Signals that a command hears once before it is stopped, whoever dies meanwhile.

Before a notice is sent it is noted with the number of the runner's last event. The runner tells of
each signal that it has sent, and tells all again on each connection: so whoever finds a note knows
by a later event that the command has heard it, and by a ping that no such event will come.
"""

from __future__ import annotations

from collections.abc import Iterable

from phalanx_agent.core.seen import Seen
from phalanx_wire.notice import Notice


def due(notices: Iterable[Notice], seen: Seen) -> Notice | None:
    """Find one that is to be sent now: it never was, or it has surely not arrived."""
    for notice in notices:
        if notice.id not in seen.noted.notices:
            return notice
        if seen.runner.replayed and _is_doubted(notice, seen):
            return notice
    return None


def doubted(notices: Iterable[Notice], seen: Seen) -> bool:
    """Tell whether one may have been sent by a process that died then, or by a lost connection."""
    return any(_is_doubted(notice, seen) for notice in notices)


def _is_doubted(notice: Notice, seen: Seen) -> bool:
    before = seen.noted.notices.get(notice.id)
    if before is None or notice.tasks or notice.id in seen.notified:
        return False  # tasks have died with the agent that told them
    return seen.runner.signalled.get(notice.signal, 0) <= before
