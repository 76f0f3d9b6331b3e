"""Ends that a session asks for itself: back to the queue, or for good."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import structlog

from phalanx_manager.core.attempts import LAST_ATTEMPT
from phalanx_manager.core.model import Stop, StopCause
from phalanx_manager.inside.question import Question, WrongQuestion

ANSWER_S: Final = 1.0
"""The commands are stopped so much later than it is settled, so that whoever asked hears of it."""

_REFUSED: Final = 1

log = structlog.get_logger(__name__)


async def requeue(question: Question) -> None:
    """Have the session tried again from the start; asked again, nothing changes.

    Raises:
        WrongQuestion: it shall end, and not go on.
    """
    session = question.row.session
    if session.attempt >= LAST_ATTEMPT:
        why = f"session {session.name} has been tried {LAST_ATTEMPT} times: it ends with this one"
        raise WrongQuestion(_REFUSED, why)
    stop = session.stop
    if stop is not None and (stop.then == "end" or stop.cause is StopCause.USER):
        why = f"session {session.name} does not go back to the queue: {stop.text}"
        raise WrongQuestion(_REFUSED, why)
    await _stop(question, StopCause.REQUEUE, "requeued by itself")


async def end(question: Question) -> None:
    """Stop the session for good; asked again, nothing changes."""
    await _stop(question, StopCause.USER, "stopped by itself")


async def _stop(question: Question, cause: StopCause, text: str) -> None:
    session, who = question.row.session, question.kernel
    order = Stop(
        cause=cause,
        text=f"{text}, in {who.host_name}",
        at=question.clock.now() + timedelta(seconds=ANSWER_S),
        then="again" if cause is StopCause.REQUEUE else "",
    )
    if await question.store.stop(session.id, order):
        log.info("session.stop", session=session.id, cause=cause, asked_in=who.host_name)
