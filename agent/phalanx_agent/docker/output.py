"""The engine's multiplexed streams as lines of log."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, Final

import aiohttp

from phalanx_agent.docker.call import Line, checked_id, speaking, understanding
from phalanx_agent.docker.port import Unavailable
from phalanx_wire.api import LogLine

_HEADER: Final = struct.Struct(">BxxxL")
_STDERR: Final = 2
_REMOVED: Final = (404, 409)
"""Gone, or on its way."""

_PAUSE_S: Final = 0.2
"""Until an engine is asked again that followed, and had nothing to tell."""

_NS: Final = 1_000_000_000
MAX_LINE_BYTES: Final = 1 << 20
"""A longer line is given in pieces, so that a container cannot fill our memory."""


async def lines(
    line: Line, container_id: str, *, since_ns: int, tail: int, follow: bool
) -> AsyncIterator[LogLine]:
    """Read a container's output in the order in which the engine kept it."""
    newest = since_ns
    while True:
        begun = newest
        old = newest > since_ns or tail < 0
        async for found in _pass(
            line, container_id, since_ns=newest, tail=-1 if old else tail, follow=follow
        ):
            newest = found.at_ns
            yield found
        if not follow:
            return
        # An engine that follows may leave out what a container said last, when that had no newline;
        # and it may stop while the container goes on: at output that is put aside faster than read.
        runs = await _runs(line, container_id)
        if newest > since_ns or tail < 0:
            try:
                async for found in _pass(
                    line, container_id, since_ns=newest, tail=-1, follow=False
                ):
                    newest = found.at_ns
                    yield found
            except Unavailable as error:
                if error.status not in _REMOVED:  # meanwhile
                    raise
        if not runs:
            return
        if newest == begun:
            await asyncio.sleep(_PAUSE_S)


async def _runs(line: Line, container_id: str) -> bool:
    what, doing = f"container {container_id[:12]}", "looking whether it runs"
    path = f"containers/{checked_id(container_id)}/json"
    try:
        found = await line.ask("GET", path, what=what, doing=doing)
    except Unavailable as error:
        if error.status in _REMOVED:
            return False
        raise
    with understanding(what, doing):
        return bool(found["State"]["Running"])


async def _pass(
    line: Line, container_id: str, *, since_ns: int, tail: int, follow: bool
) -> AsyncIterator[LogLine]:
    """Read it once, to the end of what is there, or of the container."""
    what = f"container {container_id[:12]}"
    params: dict[str, Any] = {
        "stdout": "1",
        "stderr": "1",
        "timestamps": "1",
        "follow": "1" if follow else "0",
        "tail": "all" if tail < 0 else str(tail),
    }
    if since_ns:
        params["since"] = f"{since_ns // _NS}.{since_ns % _NS:09}"
    joiner = Joiner()
    path = f"containers/{checked_id(container_id)}/logs"
    async with line.stream(path, what=what, doing="reading its log", params=params) as answer:
        async for channel, entry in _frames(answer, what):
            for found in joiner.take(channel, entry):
                if found.at_ns > since_ns:
                    yield found
    for rest in joiner.rest():
        if rest.at_ns > since_ns:
            yield rest


async def _frames(answer: aiohttp.ClientResponse, what: str) -> AsyncIterator[tuple[int, bytes]]:
    with speaking(what, "reading its log"):
        while True:
            header = await _exactly(answer, _HEADER.size)
            if header is None:
                return
            channel, size = _HEADER.unpack(header)
            entry = await _exactly(answer, size)
            if entry is None:
                return
            yield channel, entry


async def _exactly(answer: aiohttp.ClientResponse, size: int) -> bytes | None:
    """Read so much; None when the stream ends before (a killed engine cuts it anywhere)."""
    parts = bytearray()
    while len(parts) < size:
        part = await answer.content.read(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


class Joiner:
    """Joins the pieces in which the engine keeps a long line; each begins with its time."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[int, bytearray]] = {}

    def take(self, channel: int, entry: bytes) -> Iterator[LogLine]:
        """Take one entry of the log; the lines that it completes."""
        stamp, _, text = entry.partition(b" ")
        at_ns, begun = self._begun.pop(channel, (nanoseconds(stamp), bytearray()))
        begun += text
        if text.endswith(b"\n") or len(begun) > MAX_LINE_BYTES:
            yield _line(at_ns, channel, begun)
        else:
            self._begun[channel] = (at_ns, begun)

    def rest(self) -> Iterator[LogLine]:
        """Give what never got its newline."""
        for channel, (at_ns, begun) in self._begun.items():
            yield _line(at_ns, channel, begun)


def _line(at_ns: int, channel: int, text: bytearray) -> LogLine:
    return LogLine(at_ns, channel == _STDERR, text.rstrip(b"\r\n").decode(errors="replace"))


def nanoseconds(stamp: bytes) -> int:
    """Read the engine's time, `2026-01-02T03:04:05.123456789Z`; 0 when it is no time."""
    whole, _, fraction = stamp.decode("ascii", "replace").removesuffix("Z").partition(".")
    try:
        seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
        return seconds * _NS + int(fraction.ljust(9, "0")[:9] or 0)
    except ValueError:
        return 0
