"""Output of all ranks as one stream: merged by time, or followed as it comes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import msgspec
from aiohttp import web

from phalanx_manager.core.model import Kernel, SessionRow
from phalanx_manager.http import cursor, sse
from phalanx_manager.http.ask import Ask
from phalanx_manager.http.logs_follow import Follower
from phalanx_manager.http.logs_pieces import Batch, Piece, Put, spell
from phalanx_manager.http.logs_read import Batches, Merger, Missing, PutLines, Wanted
from phalanx_manager.http.problems import refused
from phalanx_manager.wake import Bell
from phalanx_wire.api import ENDED_STATES, LogLine
from phalanx_wire.ids import SessionId

_WAITING_PIECES: Final = 2
_EVENTS: Final = 256
_LAST_CHARACTERS: Final = 16 << 20
_FEW: Final = 16
_CURSOR_EVERY_S: Final = 0.5
_NEWS: Final = frozenset({"session.stuck", "session.unshared"})
"""Events that are told amid the output: without them its silence means nothing."""

Producer = Callable[[Put, Missing], Awaitable[None]]
LinesProducer = Callable[[PutLines, Missing], Awaitable[None]]


class LogEnd(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last event of a log stream (`event: end`).

    Attributes:
        missing: what could not be told, sentences.
    """

    missing: tuple[str, ...] = ()


async def stream(ask: Ask) -> web.StreamResponse:
    """Send the output of a session's ranks as server-sent events."""
    row = await _attempt(ask, await ask.row())
    kernels = ask.kernels(row)
    wanted = _wanted(ask)
    few = len(kernels) <= _FEW
    if ask.values.get("follow", False):
        follower = Follower(ask, row, kernels, wanted)
        return await _send(ask, follower.run, wanted, few=few, news_of=row.session.id)
    lines: LinesProducer = Merger(ask.open, kernels, wanted).run
    if wanted.tail >= 0:
        lines = _last(lines, wanted.tail)
    lives = row.session.state not in ENDED_STATES
    news_of = row.session.id if lives else None
    return await _send(ask, _spelled(lines, wanted), wanted, few=few, news_of=news_of)


async def _attempt(ask: Ask, row: SessionRow) -> SessionRow:
    """Turn to the attempt that was asked for."""
    number = ask.values.get("attempt")
    if number is None or number == row.session.attempt:
        return row
    if ask.values.get("follow", False):
        raise refused("invalid_parameter", 400, "an attempt that is over cannot be followed")
    found = await ask.doors.store.attempt(row.session.id, number)
    if found is None:
        title = f"there is no attempt {number}; the session has had {row.session.attempt}"
        raise refused("no_such_attempt", 404, title, "attempt")
    return found


def _wanted(ask: Ask) -> Wanted:
    since = ask.values.get("since")
    if isinstance(since, timedelta):
        since = ask.doors.clock.now() - since
    since_ns = 0 if since is None else max(0, int(since.timestamp() * 1e6) * 1000)
    try:
        positions = cursor.parse(ask.request.headers.get("Last-Event-ID", ""))
    except ValueError as error:
        raise refused("bad_resume_point", 400, f"Last-Event-ID: {error}") from error
    return Wanted(since_ns, int(ask.values.get("tail", -1)), positions)


def _spelled(producer: LinesProducer, wanted: Wanted) -> Producer:
    """Spell lines as they come."""
    positions = dict(wanted.positions)

    async def run(put: Put, missing: Missing) -> None:
        async def put_lines(batch: Batch) -> None:
            piece = spell(batch, positions)
            positions.update(piece.ends)
            await put(piece)

        await producer(put_lines, missing)

    return run


def _last(producer: LinesProducer, count: int) -> LinesProducer:
    """Keep the last lines of all ranks together, and of them no more than memory bears."""

    async def run(put: PutLines, missing: Missing) -> None:
        lines: deque[tuple[Kernel, LogLine]] = deque()
        held = 0

        async def keep(batch: Batch) -> None:
            nonlocal held
            for kernel, line in batch:
                lines.append((kernel, line))
                held += len(line.text)
                while len(lines) > count or held > _LAST_CHARACTERS:
                    held -= len(lines.popleft()[1].text)

        await producer(keep, missing)
        batches = Batches(put)
        while lines:
            await batches.add(*lines.popleft())
        await batches.flush()

    return run


async def _send(
    ask: Ask, producer: Producer, wanted: Wanted, *, few: bool, news_of: SessionId | None = None
) -> web.StreamResponse:
    clock = ask.doors.clock
    positions = dict(wanted.positions)
    missing = Missing()
    queue: asyncio.Queue[Piece | None] = asyncio.Queue(_WAITING_PIECES)
    told_s = 0.0

    async def produce() -> None:
        await producer(queue.put, missing)
        await queue.put(None)

    with ask.turnstile.stream(ask.caller):
        async with sse.stream(ask.request) as events:
            news = _News(ask, events)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(produce())
                if news_of is not None:
                    tasks.create_task(news.tell(news_of))
                while (piece := await queue.get()) is not None:
                    positions.update(piece.ends)
                    now_s = clock.monotonic_s()
                    resumable = few or now_s - told_s > _CURSOR_EVERY_S
                    told_s = now_s if resumable else told_s
                    await events.send(piece.identified(positions if resumable else None))
                news.finish()
            end = msgspec.json.encode(LogEnd(missing.sentences()))
            await events.send(sse.spell(end, "end"))
    return events.response


class _News:
    """What a follower has to know beside the output."""

    def __init__(self, ask: Ask, events: sse.Events) -> None:
        self._ask = ask
        self._events = events
        self._over = False
        self._bell = Bell()

    async def tell(self, session: SessionId) -> None:
        """Send it as it comes, until all that came before the end is told."""
        after = 0
        with self._ask.doors.chimes.watch(session) as self._bell:
            while True:
                last = self._over
                while found := await self._ask.doors.store.events(after, session, _EVENTS):
                    after = found[-1].id
                    for event in found:
                        if event.kind in _NEWS:
                            await self._events.send(sse.spell(msgspec.json.encode(event), "event"))
                if last:
                    return
                await self._bell.wait()

    def finish(self) -> None:
        """All output was sent."""
        self._over = True
        self._bell.ring()
