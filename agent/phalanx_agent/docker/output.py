"""The engine's multiplexed streams as lines of log."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from phalanx_agent.docker.answer import Answer
from phalanx_agent.docker.call import CALL_S, Line, checked_id, understanding
from phalanx_agent.docker.places import Places
from phalanx_agent.docker.port import REMOVED, Unavailable
from phalanx_agent.docker.rounds import Rounds
from phalanx_wire import loglines
from phalanx_wire.api import LogLine

_HEADER: Final = struct.Struct(">BxxxL")
"""Of an entry: its channel, and how long it is."""

_STDERR: Final = 2
_PAUSE_S: Final = 0.2
"""Until an engine is asked again that followed, and had nothing to tell."""

_PLACES: Final = 16
"""Readers at once of what there is: an engine holds 4,096 entries of 16 KiB ready for each."""

_OPENINGS: Final = 4
"""Readers at once for which an engine looks for their beginning: it may read 64 MB for that."""

_FOLLOWER_BEGINS_S: Final = 0.5
"""So long a follower may be one of them; it cannot be told from one that waits for a new line."""

_NS: Final = 1_000_000_000
DISORDER_NS: Final = 250_000_000
"""The two channels of a container get their times and are written by two that do not wait for each
other: an entry may be earlier than one before it, by 34 ms where a host was busy."""

MAX_LINE_BYTES: Final = loglines.MAX_TEXT_BYTES
"""A longer line is given in pieces, so that a container cannot fill our memory."""


@dataclass(slots=True)
class _Reader:
    """One who reads a container's output.

    Attributes:
        session: openings of readers go round by it.
        since_ns: no line is given that is not later.
        tail: how many of the last lines it begins with, -1 is all.
        newest_ns: of the line that was given last.
    """

    container_id: str
    session: str
    since_ns: int
    tail: int
    frames: Frames
    joiner: Joiner
    newest_ns: int = 0

    def begin(self) -> tuple[int, int]:
        """Tell from when on it has to be read (again), and how many of the last lines."""
        last_ns = self.frames.again()
        if not last_ns:
            return self.since_ns, self.tail
        return max(self.since_ns, last_ns - DISORDER_NS), -1

    def wanted(self, lines: Iterator[LogLine]) -> Iterator[LogLine]:
        """Leave out what the engine gives besides: it knows moments less exactly than lines do."""
        for line in lines:
            if line.at_ns > self.since_ns:
                self.newest_ns = line.at_ns
                yield line


class Output:
    """Reads what containers say out of one engine."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._places = Places(_PLACES)
        self._openings = Rounds(_OPENINGS)

    async def lines(
        self, container_id: str, *, session: str, since_ns: int, tail: int, follow: bool
    ) -> AsyncGenerator[Iterator[LogLine], None]:
        """Read a container's output in the order in which the engine kept it.

        A piece of it is taken apart as it is iterated: wholly, before the next is asked for.
        """
        reader = _Reader(container_id, session, since_ns, tail, Frames(), Joiner())
        while True:
            begun = reader.newest_ns
            async with aclosing(self._pass(reader, follow=follow)) as pieces:
                async for piece in pieces:
                    yield piece
            if not follow and not reader.joiner.holds:
                return
            runs = await self._runs(container_id)
            # An engine that follows may leave out what a container said last, when that had no
            # newline; and it may stop while the container goes on: at output that is put aside
            # faster than read.
            if follow or not runs:
                async with aclosing(self._pass(reader, follow=False)) as pieces:
                    async for piece in pieces:
                        yield piece
            if not runs:
                yield reader.wanted(reader.joiner.rest())
            if not follow or not runs:
                return
            if reader.newest_ns == begun:
                await asyncio.sleep(_PAUSE_S)

    async def _runs(self, container_id: str) -> bool:
        what, doing = f"container {container_id[:12]}", "looking whether it runs"
        path = f"containers/{checked_id(container_id)}/json"
        try:
            found = await self._line.ask("GET", path, what=what, doing=doing)
        except Unavailable as error:
            if error.status in REMOVED:
                return False
            raise
        with understanding(what, doing):
            return bool(found["State"]["Running"])

    async def _pass(
        self, reader: _Reader, *, follow: bool
    ) -> AsyncGenerator[Iterator[LogLine], None]:
        """Read what it has not given, to the end of what is there, or of the container."""
        async with aclosing(self._follow(reader) if follow else self._read(reader)) as pieces:
            async for piece in pieces:
                if fresh := reader.frames.fresh(piece):
                    yield reader.wanted(reader.joiner.join(reader.frames.take(fresh)))

    async def _follow(self, reader: _Reader) -> AsyncGenerator[bytes, None]:
        async with AsyncExitStack() as stack:
            answer = await self._open(stack, reader, follow=True)
            while piece := await answer.read():
                yield piece

    async def _read(self, reader: _Reader) -> AsyncGenerator[bytes, None]:
        """Read in a place, and where it is lost go on in another."""
        lost = True
        while lost:
            async with self._places.of(reader.session) as place, AsyncExitStack() as stack:
                answer = await self._open(stack, reader, follow=False)
                while not place.lost and (piece := await answer.read()):
                    with place.resting(answer.close):
                        yield piece
                lost = place.lost

    async def _open(self, stack: AsyncExitStack, reader: _Reader, *, follow: bool) -> Answer:
        """Open it until the stack unwinds, when the engine is through with what is left out."""
        since_ns, tail = reader.begin()
        params: dict[str, Any] = {
            "stdout": "1",
            "stderr": "1",
            "timestamps": "1",
            "follow": "1" if follow else "0",
            "tail": "all" if tail < 0 else str(tail),
        }
        if since_ns:
            params["since"] = f"{since_ns // _NS}.{since_ns % _NS:09}"
        async with self._openings.of(reader.session):
            answer = await stack.enter_async_context(
                self._line.trickle(
                    f"containers/{checked_id(reader.container_id)}/logs",
                    what=f"container {reader.container_id[:12]}",
                    doing="reading its log",
                    params=params,
                )
            )
            if not follow or (since_ns and tail < 0):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FOLLOWER_BEGINS_S if follow else CALL_S):
                        await answer.begins()
            return answer


class Frames:
    """Takes the engine's stream apart into entries of the log: channel, time, text."""

    def __init__(self) -> None:
        self._rest = b""
        self._newest: dict[int, tuple[bytes, int]] = {}  # times, and how many entries have them
        self._last = 0  # channel
        self._sought = 0  # entries of that time and channel, until what follows is new
        self._latest_ns = 0  # of all that were given

    def take(self, piece: bytes) -> Iterator[tuple[int, bytes, bytes]]:
        """Take a piece, wherever it is cut; the entries that it completes. A killed engine may
        leave half of one.
        """
        data, at = self._rest + piece, 0
        while end := _end(data, at):
            channel = data[at]
            stamp, _, text = data[at + _HEADER.size : end].partition(b" ")
            before, count = self._newest.get(channel, (b"", 0))
            self._newest[channel] = (stamp, count + 1 if stamp == before else 1)
            self._last = channel
            at = end
            yield channel, stamp, text
        self._rest = data[at:]

    def again(self) -> int:
        """Prepare for the same stream from its beginning, or from `DISORDER_NS` before the entry
        that was given last: its time in nanoseconds, 0 before any.
        """
        self._rest = b""
        stamp, self._sought = self._newest.get(self._last, (b"", 0))
        # Pieces of a line without end keep the time of its beginning: the last may be an old one.
        self._latest_ns = max(
            [nanoseconds(newest) for newest, _ in self._newest.values()], default=0
        )
        return nanoseconds(stamp)

    def fresh(self, piece: bytes) -> bytes:
        """Leave out of a piece what was given before the stream began anew."""
        if not self._sought:
            return piece
        data, at = self._rest + piece, 0
        while self._sought and (end := _end(data, at)) and self._is_old(data[at:end]):
            at = end
        self._rest = data[at:] if self._sought else b""
        return b"" if self._sought else data[at:]

    def _is_old(self, entry: bytes) -> bool:
        last, _ = self._newest[self._last]
        stamp = entry[_HEADER.size :].partition(b" ")[0]
        if entry[0] == self._last and stamp == last:
            self._sought -= 1
            return True
        if nanoseconds(stamp) <= self._latest_ns + DISORDER_NS:
            return True
        self._sought = 0  # what was given last is not kept any more: this one came later
        return False


def _end(data: bytes, at: int) -> int:
    """Where the entry ends that begins there; 0 when it is not all there."""
    begin = at + _HEADER.size
    if begin > len(data):
        return 0
    _, length = _HEADER.unpack_from(data, at)
    return begin + length if begin + length <= len(data) else 0


class Joiner:
    """Joins the pieces in which the engine keeps a long line; each begins with its time."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[int, bytearray]] = {}
        self._given: set[int] = set()  # of what has begun, a part was given

    def join(self, entries: Iterator[tuple[int, bytes, bytes]]) -> Iterator[LogLine]:
        """Take entries of the log; the lines that they complete."""
        for channel, stamp, text in entries:
            if channel in self._begun or not text.endswith(b"\n"):
                line = self._longer(channel, nanoseconds(stamp), text)
                if line is not None:
                    yield line
            else:
                yield _line(nanoseconds(stamp), channel, text.rstrip(b"\r\n"))

    @property
    def holds(self) -> bool:
        """Whether there is a line that has not ended."""
        return any(begun for _, begun in self._begun.values())

    def rest(self) -> Iterator[LogLine]:
        """Give what never got its newline."""
        for channel, (at_ns, begun) in self._begun.items():
            if begun:
                yield _line(at_ns, channel, begun.rstrip(b"\r\n"))

    def _longer(self, channel: int, at_ns: int, text: bytes) -> LogLine | None:
        """Add to a line; itself when it has ended, or what there is of it when that is much."""
        at_ns, begun = self._begun.pop(channel, (at_ns, bytearray()))
        given = channel in self._given
        begun += text
        if text.endswith(b"\n"):
            self._given.discard(channel)
            whole = begun.rstrip(b"\r\n")
            return _line(at_ns, channel, whole) if whole or not given else None
        if len(begun) > MAX_LINE_BYTES:
            self._given.add(channel)
            self._begun[channel] = (at_ns, bytearray())
            return _line(at_ns, channel, begun)
        self._begun[channel] = (at_ns, begun)
        return None


def _line(at_ns: int, channel: int, text: bytes | bytearray) -> LogLine:
    return LogLine(at_ns, channel == _STDERR, text.decode(errors="replace"))


def nanoseconds(stamp: bytes) -> int:
    """Read the engine's time, `2026-01-02T03:04:05.123456789Z`; 0 when it is no time."""
    whole, _, fraction = stamp.removesuffix(b"Z").partition(b".")
    try:
        return _seconds(whole) * _NS + int(fraction.ljust(9, b"0")[:9])
    except ValueError:
        return 0


@lru_cache(maxsize=64)
def _seconds(whole: bytes) -> int:
    """Lines that follow each other mostly have the same one."""
    return int(datetime.fromisoformat(f"{whole.decode('ascii')}+00:00").timestamp())
