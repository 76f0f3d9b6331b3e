"""Output as it comes: read once from its agent, and handed to all who follow it.

The first has all it wants by that stream. Whoever comes later reads what has been kept by one of
its own, and then goes on with the lines that come. None is lost between the two, and none is told
twice: a reader marks its place among the coming lines before it asks for the kept ones, and then
passes over what it has had. The agent is read as fast as the fastest reader is; those that fall too
far behind turn to what is kept again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from phalanx_manager.core.model import Kernel
from phalanx_manager.http.cursor import Position
from phalanx_manager.http.logs_pieces import Piece, Put, following, portions, reaches, spell_one
from phalanx_manager.http.logs_read import Source, Wanted
from phalanx_manager.rpc.shares import Shares
from phalanx_manager.rpc.steps import OpenStream
from phalanx_wire.api import LogLine
from phalanx_wire.ids import KernelId
from phalanx_wire.lifecycle import ENDED, KernelState
from phalanx_wire.stream import Closed

_HELD_BYTES: Final = 512 << 10
"""For those that are behind; a part that nobody waits for is not held at all."""

_LINE_BYTES: Final = 200
"""What a line takes in memory beside its text."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Part:
    """Some lines that came.

    Attributes:
        before: the position of the line before them.
        waited_for: how many readers have still to take it.
        held: bytes of memory, about.
    """

    lines: list[LogLine]
    before: Position | None
    piece: Piece
    waited_for: int
    held: int


class _Live:
    """The output of one kernel as it comes.

    Attributes:
        closed: how the agent ended it; None while more may come.
        position: of the newest line that was read.
    """

    def __init__(self, open_stream: OpenStream, kernel: Kernel, tasks: asyncio.TaskGroup) -> None:
        self._open = open_stream
        self._kernel = kernel
        self._tasks = tasks
        self._reading: asyncio.Task[None] | None = None
        self._parts: deque[_Part] = deque()
        self._held = 0
        self._first = 0  # number of the oldest part
        self._readers = 0
        self._news = asyncio.Event()
        self._hungry = asyncio.Event()
        self.closed: Closed | None = None
        self.position: Position | None = None

    @property
    def begun(self) -> bool:
        """Whether it is read."""
        return self._reading is not None

    @property
    def followed(self) -> bool:
        """Whether anybody reads it."""
        return self._readers > 0

    def begin(self, first: Source) -> None:
        """Read what the first wants, and has not had, and all that comes after it. Who wants what
        is later than a time, and has had nothing, has found that nothing was said before.
        """
        self.position = first.position
        tail = -1 if first.wanted.since_ns else first.wanted.tail
        source = Source(self._kernel, Wanted(0, tail, {}), first.position)
        self._reading = self._tasks.create_task(self._read(source))

    async def end(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _read(self, source: Source) -> None:
        closed = Closed(0, code="internal", why="The manager failed; its log says how.")
        try:
            async with AsyncExitStack() as stack:
                stream = await source.open(self._open, stack, follow=True)
                if stream is not None:
                    async for lines in source.read(stream, None):
                        await self._hand_out(lines)
            closed = source.closed or closed
        except Exception:
            log.exception("logs.live.failed", kernel=self._kernel.id)
        finally:
            self.closed = closed
            self._news.set()

    async def _hand_out(self, lines: list[LogLine]) -> None:
        for portion in portions(lines):
            piece = spell_one(self._kernel, portion, self.position)
            held = sum(len(line.text) + _LINE_BYTES for line in portion) + len(piece.events)
            self._parts.append(_Part(portion, self.position, piece, self._readers, held))
            self._held += held
            self.position = piece.ends[self._kernel.rank]
            self._trim()
            self._hungry.clear()
            self._news.set()
            self._news = asyncio.Event()
            await self._hungry.wait()

    def _trim(self) -> None:
        """Forget what nobody waits for, and the oldest where it is too much."""
        while self._parts and (
            not self._parts[0].waited_for or (self._held > _HELD_BYTES and len(self._parts) > 1)
        ):
            self._held -= self._parts.popleft().held
            self._first += 1

    # ---------------------------------------------------------------- of readers

    def enter(self) -> int:
        """Count one reader more; the number of the part that will come next."""
        self._readers += 1
        return self._first + len(self._parts)

    def leave(self, at: int) -> None:
        """Count one reader less, that would have taken this part next."""
        self._readers -= 1
        for number in range(max(at - self._first, 0), len(self._parts)):
            self._parts[number].waited_for -= 1
        self._trim()

    def dropped(self, at: int) -> bool:
        """Tell whether a part is forgotten that a reader has not taken."""
        return at < self._first

    def take(self, at: int) -> _Part | None:
        """Take a part; None when it has not come yet."""
        if at - self._first >= len(self._parts):
            return None
        part = self._parts[at - self._first]
        part.waited_for -= 1
        self._trim()
        return part

    async def more(self) -> None:
        """Wait for what comes."""
        self._hungry.set()
        await self._news.wait()


class Reader:
    """One who follows a kernel's output."""

    def __init__(self, live: _Live, source: Source) -> None:
        """Args: source: what the reader wants and has had."""
        self._live = live
        self._source = source
        self._at = live.enter()
        self._before: Position | None = None
        self._marked = False

    def leave(self) -> None:
        """Take nothing more."""
        self._live.leave(self._at)

    async def run(self, open_stream: OpenStream, state: KernelState, put: Put) -> None:
        """Hand over all that the source wants, until the end; `source.closed` tells how that was.

        Args:
            open_stream: opens the reader's own streams, for what is kept.
            state: of the kernel, as far as is known.
        """
        live, source = self._live, self._source
        while True:
            self._mark()
            if not self._finds_all_in_what_comes():
                await self._read_kept(open_stream, put)
                if state in ENDED or source.closed is None or source.closed.code:
                    return
            if not live.begun:
                live.begin(source)
                self._before = live.position
            elif not self._marked:
                continue  # another began it meanwhile, perhaps later than from here
            if await self._take_all(put):
                source.closed = live.closed
                return

    def _finds_all_in_what_comes(self) -> bool:
        """Tell whether nothing that is kept has to be asked for: the first has it all by the stream
        of which others have what comes. But not what is later than a time, of which they might get
        nothing.
        """
        source = self._source
        wants_all = source.position is not None or not source.wanted.since_ns
        return wants_all and not self._live.begun

    def _mark(self) -> None:
        """Have all that comes from now on held for this reader."""
        self._live.leave(self._at)
        self._at = self._live.enter()
        self._before = self._live.position
        self._marked = self._live.begun

    async def _take_all(self, put: Put) -> bool:
        """Hand over what comes after the lines that were kept, to the end; False: some of it is not
        there, because it was more than could be held for so slow a reader.
        """
        live, source = self._live, self._source
        had = None if reaches(self._before, source.position) else source.position
        passed_over = False
        while not live.dropped(self._at):
            part = live.take(self._at)
            if part is not None:
                self._at += 1
                lines, had = _after(part, had)
                passed_over = True
                if had is not None and lines:
                    return False  # the line that was had last does not come any more
                piece = _piece(part, lines, source)
                if piece is not None:
                    source.position = piece.ends[source.kernel.rank]
                    await put(piece)
            elif live.closed is None:
                await live.more()
            else:
                # What was passed over before the line that was had last may have come after it.
                return had is None or not passed_over
        return False

    async def _read_kept(self, open_stream: OpenStream, put: Put) -> None:
        """Hand over what the container has said so far; `source.closed` tells how that ended."""
        source = self._source
        wanted, kernel = source.wanted, source.kernel
        if source.position is None and (wanted.tail == 0 or wanted.since_ns):
            newest = Source(kernel, Wanted(0, 1, {}))
            async with aclosing(_kept(newest, open_stream)) as chunks:
                async for _ in chunks:
                    continue
            source.closed, at = newest.closed, newest.position
            if at is None or wanted.tail == 0 or at[0] <= wanted.since_ns:
                source.position = at  # none of it is wanted, but what comes after it
                return
        before = source.position
        async with aclosing(_kept(source, open_stream)) as chunks:
            async for lines in chunks:
                for portion in portions(line for line in lines if line.at_ns > wanted.since_ns):
                    piece = spell_one(kernel, portion, before)
                    before = piece.ends[kernel.rank]
                    await put(piece)


async def _kept(source: Source, open_stream: OpenStream) -> AsyncGenerator[list[LogLine], None]:
    async with AsyncExitStack() as stack:
        stream = await source.open(open_stream, stack, follow=False)
        if stream is not None:
            async for lines in source.read(stream, None):
                yield lines


def _after(part: _Part, had: Position | None) -> tuple[list[LogLine], Position | None]:
    """Pass over lines up to the last that a reader has had.

    Returns:
        The lines after it, and None. As long as it has not come: itself, and the lines that are
        later, which are none where it can still come.
    """
    before = part.before
    for number, line in enumerate(part.lines if had is not None else ()):
        before = following(before, line.at_ns)
        if reaches(before, had):
            return part.lines[number + 1 :], None
    if had is None:
        return part.lines, None
    return [line for line in part.lines if line.at_ns > had[0]], had


def _piece(part: _Part, lines: list[LogLine], source: Source) -> Piece | None:
    """Spell those lines of a part, its last ones, that a reader wants; None: there are none."""
    wanted = [line for line in lines if line.at_ns > source.wanted.since_ns]
    if len(wanted) == len(part.lines):
        return part.piece
    before = part.before
    for line in part.lines[: len(part.lines) - len(lines)]:
        before = following(before, line.at_ns)
    return spell_one(source.kernel, wanted, before) if wanted else None


class Outputs:
    """The outputs that are followed now."""

    def __init__(self, shares: Shares, tasks: asyncio.TaskGroup) -> None:
        """Args: tasks: those that read."""
        self._shares = shares
        self._tasks = tasks
        self._live: dict[KernelId, _Live] = {}

    @asynccontextmanager
    async def reader(self, source: Source, user: str) -> AsyncIterator[Reader]:
        """Follow a kernel's output.

        Args:
            user: whose the session is; what all share is one of this user's streams.
        """
        kernel = source.kernel
        live = self._live.get(kernel.id)
        if live is None or live.closed is not None:
            live = _Live(partial(self._shares.open, user), kernel, self._tasks)
            self._live[kernel.id] = live
        reader = Reader(live, source)
        try:
            yield reader
        finally:
            reader.leave()
            if not live.followed:
                if self._live.get(kernel.id) is live:
                    del self._live[kernel.id]
                await live.end()
