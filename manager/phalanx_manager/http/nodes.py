"""Hosts: shown, taken out of service, taken back, given up."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import structlog
from aiohttp import web

from phalanx_manager.core.forget import forget as forgotten
from phalanx_manager.core.model import AgentRecord, Drain, Refusal
from phalanx_manager.core.warning import signal_number
from phalanx_manager.http import bodies, views
from phalanx_manager.http.ask import Ask, answer
from phalanx_manager.http.problems import not_found, refusal, refused, shown
from phalanx_wire.api import DrainRequest, NodeList, NodeView
from phalanx_wire.ids import AgentId

MAX_DEADLINE_S: Final = 366 * 86_400.0
MAX_REASON: Final = 200

log = structlog.get_logger(__name__)


async def listing(ask: Ask) -> web.Response:
    """List agents and their hosts."""
    snapshot = await ask.doors.store.load()
    return answer(NodeList(views.nodes(snapshot, ask.doors.clock.now(), ask.caller)))


async def drain(ask: Ask) -> web.Response:
    """Give a host no new work; again with other words, they count from now on."""
    raw = await bodies.read_json(ask.request) if ask.request.can_read_body else b"{}"
    wish = bodies.parse(raw, DrainRequest)
    record = await _record(ask)
    order = _order(ask, wish)
    text = f"agent {record.name} is drained by {order.reason}"
    await ask.doors.store.drain(record.name, order, text, order.at)
    log.info("agent.drained", agent=record.name, user=ask.caller.user, reason=wish.reason)
    return answer(await _shown(ask, record.name))


async def undrain(ask: Ask) -> web.Response:
    """Give a host work again; when it is not drained, nothing changes."""
    record = await _record(ask)
    if record.drain is not None:
        text = f"{ask.caller.user} has put agent {record.name} back into service"
        await ask.doors.store.drain(record.name, None, text, ask.doors.clock.now())
        log.info("agent.undrained", agent=record.name, user=ask.caller.user)
    return answer(await _shown(ask, record.name))


async def forget(ask: Ask) -> web.Response:
    """Give up a lost host: what it held is free, and it may come back only by joining anew."""
    record = await _record(ask)
    store, now = ask.doors.store, ask.doors.clock.now()
    found = forgotten(await store.load(), record, now)
    if isinstance(found, Refusal):
        raise refusal(found)
    if not await store.record(found.kernels, found.networks, now):
        raise refused("busy", 409, f"what agent {record.name} holds has just changed", hint="again")
    text = f"{ask.caller.user} has forgotten agent {record.name} and what it held"
    await store.forget(record.name, text, now)
    log.info("agent.forgotten", agent=record.name, user=ask.caller.user)
    return web.Response(status=204)


def _order(ask: Ask, wish: DrainRequest) -> Drain:
    if not wish.reason.isprintable() or len(wish.reason) > MAX_REASON:
        title = f"the reason is one line of at most {MAX_REASON} characters"
        raise refused("invalid_field", 400, title, "reason")
    deadline_s = wish.deadline_s
    if deadline_s is not None and not 0 <= deadline_s <= MAX_DEADLINE_S:
        title = f"deadline_s is {deadline_s:g}; it is a number of seconds to {MAX_DEADLINE_S:g}"
        raise refused("invalid_field", 400, title, "deadline_s")
    number = 0 if wish.signal is None else signal_number(wish.signal)
    if number is None:
        title = f"{shown(wish.signal or '')} is no signal"
        raise refused("invalid_field", 400, title, "signal", "a name like USR1")
    now = ask.doors.clock.now()
    who = ask.caller.user
    return Drain(
        reason=f"{who}: {wish.reason}" if wish.reason else who,
        at=now,
        deadline=None if deadline_s is None else now + timedelta(seconds=deadline_s),
        signal=number,
    )


async def _record(ask: Ask) -> AgentRecord:
    name = ask.request.match_info["name"]
    for record in await ask.doors.store.agents():
        if record.name == name:
            return record
    raise not_found("node", name)


async def _shown(ask: Ask, name: AgentId) -> NodeView:
    snapshot = await ask.doors.store.load()
    views_ = views.nodes(snapshot, ask.doors.clock.now(), ask.caller)
    return next(view for view in views_ if view.name == name)
