"""What happened: as a list, or as a stream that can be resumed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from phalanx_manager.core.model import SessionRow
from phalanx_manager.http import clusters, sse
from phalanx_manager.http.ask import Ask
from phalanx_manager.http.problems import refused
from phalanx_wire.api import EventView
from phalanx_wire.ids import ClusterName, SessionId

_BATCH: Final = 500


async def of_session(ask: Ask) -> web.StreamResponse:
    """Tell the timeline of one session."""
    row = await ask.row()

    async def ended() -> bool:
        return (await ask.again(row)).session.ended_at is not None

    return await _tell(ask, _Timeline(ask, await _after(ask), session=row.session.id), ended)


async def of_all(ask: Ask) -> web.StreamResponse:
    """Tell what happens to all sessions of the caller; an admin hears of agents too."""
    return await _tell(ask, _Timeline(ask, await _after(ask)), _never)


async def of_cluster(ask: Ask) -> web.StreamResponse:
    """Tell what happens in one cluster: to its sessions, its agents and itself."""
    name = (await clusters.named(ask)).name

    async def gone() -> bool:
        return (await clusters.named(ask)).removed_at is not None

    return await _tell(ask, _Timeline(ask, await _after(ask), cluster=name), gone)


async def _never() -> bool:
    return False


async def _tell(
    ask: Ask, timeline: _Timeline, over: Callable[[], Awaitable[bool]]
) -> web.StreamResponse:
    if not sse.wants(ask.request):
        found, _more = await timeline.next_batch(ask.values.get("limit", _BATCH))
        body = msgspec.json.encode(found)
        return web.Response(body=body, content_type="application/json")
    follow = ask.values.get("follow", True)
    with ask.turnstile.stream(ask.caller), ask.doors.chimes.watch(timeline.session) as bell:
        async with sse.stream(ask.request) as events:
            while True:
                # Whether it has ended is read before its events: none can come after.
                ended = await over()
                found, more = await timeline.next_batch(_BATCH)
                if found:
                    await events.send(b"".join(_spell(event) for event in found))
                if not more and (ended or not follow):
                    break
                if not more:
                    await bell.wait()
            await events.send(sse.spell(b"{}", "end"))
    return events.response


async def _after(ask: Ask) -> int:
    """Find from where to go on. Of events that never were, as after a database was put back to an
    older state, those are told that come from now on.
    """
    wanted = _wanted(ask)
    return min(wanted, await ask.doors.store.last_event()) if wanted else 0


def _wanted(ask: Ask) -> int:
    text = ask.request.headers.get("Last-Event-ID")
    if text is None:
        return int(ask.values.get("after", 0))
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise refused("bad_resume_point", 400, "Last-Event-ID is not the id of an event")
    return int(text)


def _spell(event: EventView) -> bytes:
    return sse.spell(msgspec.json.encode(event), "event", str(event.id))


class _Timeline:
    """Reads on from where it was, and leaves out what is not the caller's business."""

    def __init__(
        self,
        ask: Ask,
        after: int,
        *,
        session: SessionId | None = None,
        cluster: ClusterName | None = None,
    ) -> None:
        self.session = session
        self._cluster = cluster
        self._ask = ask
        self._after = after
        self._theirs: dict[SessionId, bool] = {}

    async def next_batch(self, limit: int) -> tuple[list[EventView], bool]:
        """Read at most so many; and tell whether there may be more."""
        store = self._ask.doors.store
        if self._cluster is None:
            found = await store.events(self._after, self.session, limit)
        else:
            found = await store.events_of_cluster(self._after, self._cluster, limit)
        if found:
            self._after = found[-1].id
        mine = [event for event in found if await self._is_mine(event)]
        return mine, len(found) == limit

    async def _is_mine(self, event: EventView) -> bool:
        if self.session is not None or self._ask.caller.scope == "admin":
            return True
        if event.session is None:
            return False
        if event.session not in self._theirs:
            row = await self._ask.doors.store.session(event.session, self._ask.caller)
            self._theirs[event.session] = isinstance(row, SessionRow)
        return self._theirs[event.session]
