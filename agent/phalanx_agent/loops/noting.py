"""What is noted before it is done, so that the next process knows of it; see `core.notices`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from phalanx_agent.core import notices
from phalanx_agent.core.seen import Running
from phalanx_agent.loops.case import Case
from phalanx_agent.loops.workshop import Workshop
from phalanx_runner import messages

_LOG = structlog.get_logger()


def notify(case: Case, workshop: Workshop, send: Callable[[bytes], bool]) -> None:
    """Send the notice that is due.

    Raises:
        OSError: it could not be noted, and was not sent.
    """
    notice = notices.due(case.needs.notices, case.seen)
    if notice is None:
        return
    told = {**case.seen.noted.notices, notice.id: case.seen.runner.seq}
    noted = replace(case.seen.noted, notices=told)
    workshop.scratch.note(case.kernel, noted)
    case.seen = replace(case.seen, noted=noted)
    if notice.tasks:
        workshop.signal_tasks(case.kernel, notice.signal)
    else:
        send(messages.signal(notice.signal))  # what is lost is found out on the next connection
    case.seen = replace(case.seen, notified=case.seen.notified | {notice.id})
    _LOG.info("kernel.notified", kernel=case.kernel, notice=notice.id, signal=notice.signal)


def lives(case: Case, workshop: Workshop) -> None:
    """Note in which of its container's lives the runner is first asked for anything: whoever starts
    the container again starts a runner that knows of nothing.

    Raises:
        OSError: it could not be noted.
    """
    container, noted = case.seen.container, case.seen.noted
    if isinstance(container, Running) and not noted.life:
        noted = replace(noted, life=container.started_at)
        workshop.scratch.note(case.kernel, noted)
        case.seen = replace(case.seen, noted=noted)


def fenced(case: Case, workshop: Workshop) -> None:
    """Note that its lease is why it ends; where there is no room for that it ends all the same."""
    noted = replace(case.seen.noted, fenced=True)
    case.seen = replace(case.seen, noted=noted)
    try:
        workshop.scratch.note(case.kernel, noted)
    except OSError as error:
        _LOG.error("fence.not-noted", kernel=case.kernel, why=str(error))
