"""Sessions and the queue: back to it, held in it, let go, and given more time."""

from __future__ import annotations

from datetime import timedelta

import structlog
from aiohttp import web

from phalanx_manager.core.model import SessionRow, Stop, StopCause
from phalanx_manager.http import views
from phalanx_manager.http.ask import Ask, answer
from phalanx_manager.http.problems import refused
from phalanx_wire.api import ExtendRequest

log = structlog.get_logger(__name__)


async def requeue(ask: Ask) -> web.Response:
    """Stop what runs of a session and put it back into the queue; there, nothing changes."""
    row = await ask.row()
    if row.session.ended_at is not None:
        title = f"session {row.session.name} has ended: it is {row.session.state}"
        raise refused("ended", 409, title, hint="ask for a new session")
    order = Stop(
        cause=StopCause.REQUEUE,
        text=f"requeued by {ask.caller.user}",
        at=ask.doors.clock.now(),
        then="again",
    )
    if row.session.state != "pending" and await ask.doors.store.stop(row.session.id, order):
        log.info("session.requeue", session=row.session.id, user=ask.caller.user)
    return answer(views.session(await ask.again(row)))


async def hold(ask: Ask) -> web.Response:
    """Keep a waiting session in the queue; a second time changes nothing."""
    return await _held(ask, held=True)


async def release(ask: Ask) -> web.Response:
    """Let a held session go; a second time changes nothing."""
    return await _held(ask, held=False)


async def _held(ask: Ask, *, held: bool) -> web.Response:
    row = await ask.row()
    if row.session.state != "pending":
        title = f"session {row.session.name} does not wait in the queue: it is {row.session.state}"
        raise refused("not_pending", 409, title, hint="requeue it first" if held else "")
    text = f"{'held' if held else 'released'} by {ask.caller.user}"
    await ask.doors.store.hold(row.session.id, text, ask.doors.clock.now(), held=held)
    log.info("session.held", session=row.session.id, user=ask.caller.user, held=held)
    return answer(views.session(await ask.again(row)))


async def extend(ask: Ask) -> web.Response:
    """Add to the time limit of the current attempt."""
    wish = await ask.body(ExtendRequest)
    row = await ask.row()
    limit_s = row.session.time_limit_s
    if limit_s is None:
        raise refused("no_time_limit", 409, f"session {row.session.name} has no time limit")
    if row.session.stop is not None or row.session.ended_at is not None:
        title = f"session {row.session.name} is {row.session.state}: its time cannot be extended"
        raise refused("ended", 409, title)
    longest = ask.doors.limits.max_time_s
    if not 0 < wish.seconds <= longest - limit_s:  # NaN compares false
        title = f"seconds is {wish.seconds:g}; with it the limit is more than 0 and at most "
        raise refused("invalid_field", 400, f"{title}{longest:g}", "seconds")
    text = f"{ask.caller.user} has added {wish.seconds:g} s to its time limit{_until(row, wish)}"
    await ask.doors.store.extend(row.session.id, wish.seconds, text, ask.doors.clock.now())
    log.info("session.extended", session=row.session.id, user=ask.caller.user)
    return answer(views.session(await ask.again(row)))


def _until(row: SessionRow, wish: ExtendRequest) -> str:
    began, limit_s = row.session.started_at, row.session.time_limit_s
    if began is None or limit_s is None:
        return ""
    return f", which ends at {began + timedelta(seconds=limit_s + wish.seconds):%H:%M:%S} UTC"
