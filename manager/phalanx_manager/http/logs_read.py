"""One kernel's output out of its agent, and that of several merged by time."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

import msgspec

from phalanx_manager.core.model import Kernel
from phalanx_manager.http.cursor import Position
from phalanx_manager.http.logs_pieces import MOST_CHARACTERS, MOST_LINES, Batch, following, reaches
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.steps import OpenStream
from phalanx_wire import loglines
from phalanx_wire.api import LogLine
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Stream
from phalanx_wire.stream import Closed, Data, LogsCall

PutLines = Callable[[Batch], Awaitable[None]]

DISORDER_NS: Final = 250_000_000
"""The two channels of a container get their times and are written by two that do not wait for each
other: a line may be earlier than one before it, on a busy host by tens of milliseconds.
"""

REMOVED: Final = "not_found"
"""An agent's word where a container was removed while its output was read. It keeps a copy of that,
which can be read from there on.
"""

_CHUNK_S: Final = 60.0
_NEVER_RAN: Final = frozenset({"cancelled", "hosts-apart", "refused", "start-failed"})
"""Causes of ends that have an exit code where there was a process."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are wanted.

    Attributes:
        since_ns: Unix nanoseconds; only later lines.
        tail: at most that many of the last lines, -1 is all.
        positions: by rank, what a stream before this one has sent.
    """

    since_ns: int
    tail: int
    positions: dict[int, Position]


class Missing:
    """What could not be told, for the last event of the stream."""

    def __init__(self) -> None:
        self._why: dict[str, list[str]] = {}

    def note(self, kernel: Kernel, why: str) -> None:
        """Note that a kernel's output is not (all) there."""
        self._why.setdefault(why, []).append(kernel.host_name)

    def sentences(self) -> tuple[str, ...]:
        """Say it, one sentence per reason."""
        return tuple(
            f"the output of {', '.join(hosts[:8])}"
            + (f" and {len(hosts) - 8} more" if len(hosts) > 8 else "")
            + f" is not complete: {why}"
            for why, hosts in self._why.items()
        )


def may_have_output(kernel: Kernel) -> bool:
    """Tell whether an agent can be asked; a container that never ran has said nothing."""
    if kernel.ended and kernel.exit_code is None and kernel.cause in _NEVER_RAN:
        return False
    made = KernelState.CREATED <= kernel.state < KernelState.EXITED
    return kernel.agent is not None and (made or kernel.container_id != "")


@dataclass(slots=True)
class Source:
    """One kernel's output, from a position on.

    Attributes:
        position: of the last line that was read, None before any.
        closed: how the last stream ended; None while it is open.
    """

    kernel: Kernel
    wanted: Wanted
    position: Position | None = None
    closed: Closed | None = field(default=None, init=False)

    async def open(
        self, open_stream: OpenStream, stack: AsyncExitStack, *, follow: bool
    ) -> Stream | None:
        """Ask the agent, until the stack unwinds; None when it is away (`closed` says so)."""
        kernel = self.kernel
        assert kernel.agent is not None  # noqa: S101 - `may_have_output` has said so
        self.closed = None
        at = self.position
        call = LogsCall(
            kernel.id,
            follow,
            since_ns=self.wanted.since_ns if at is None else max(at[0] - DISORDER_NS, 0),
            tail=self.wanted.tail if at is None else -1,
        )
        try:
            return await stack.enter_async_context(open_stream(kernel.agent, call))
        except Unavailable as error:
            self.closed = Closed(0, code="unavailable", why=str(error))
            return None

    async def read(self, stream: Stream, timeout_s: float | None) -> AsyncIterator[list[LogLine]]:
        """Read lines in chunks until the stream ends; then `closed` says how."""
        had, before = self.position, None
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    item = await anext(stream, None)
            except TimeoutError:
                self.closed = Closed(0, code="unavailable", why=f"silent for {timeout_s:g} s")
                return
            if item is None:
                self.closed = stream.closed
                return
            if not isinstance(item, Data):
                continue
            try:
                lines = loglines.unpack(item.data)
            except msgspec.MsgspecError as error:
                self.closed = Closed(0, code="protocol_error", why=f"broken log lines: {error}")
                return
            fresh: list[LogLine] = []
            for line in lines:
                if had is not None and line.at_ns <= had[0] + DISORDER_NS:
                    before = following(before, line.at_ns)
                    had = None if reaches(before, had) else had
                    continue
                had = None  # else the line that was had last is not kept any more
                fresh.append(line)
                self.position = following(self.position, line.at_ns)
            if fresh:
                yield fresh


class Batches:
    """Hands over lines together, but not so many that a slow reader fills our memory."""

    def __init__(self, put: PutLines) -> None:
        self._put = put
        self._batch: Batch = []
        self._held = 0

    async def add(self, kernel: Kernel, line: LogLine) -> None:
        """Take one line more."""
        self._batch.append((kernel, line))
        self._held += len(line.text)
        if len(self._batch) >= MOST_LINES or self._held >= MOST_CHARACTERS:
            await self.flush()

    async def flush(self) -> None:
        """Hand over what there is."""
        if self._batch:
            batch, self._batch, self._held = self._batch, [], 0
            await self._put(batch)


class Merger:
    """Output of several kernels that is there now, in the order of time."""

    def __init__(self, open_stream: OpenStream, kernels: Sequence[Kernel], wanted: Wanted) -> None:
        self._open_stream = open_stream
        self._sources = [
            Source(kernel, wanted, wanted.positions.get(kernel.rank))
            for kernel in kernels
            if may_have_output(kernel)
        ]

    async def run(self, put: PutLines, missing: Missing) -> None:
        """Hand over all lines in batches."""
        async with AsyncExitStack() as stack:
            lines: list[AsyncIterator[list[LogLine]]] = []
            sources: list[Source] = []
            for source in self._sources:
                stream = await source.open(self._open_stream, stack, follow=False)
                if stream is not None:
                    sources.append(source)
                    lines.append(self._whole(source, stream, stack))
            await self._merge(sources, lines, put)
        for source in self._sources:
            if source.closed is not None and source.closed.code:
                missing.note(source.kernel, source.closed.why or source.closed.code)

    async def _whole(
        self, source: Source, stream: Stream, stack: AsyncExitStack
    ) -> AsyncIterator[list[LogLine]]:
        async for lines in source.read(stream, _CHUNK_S):
            yield lines
        if source.closed is not None and source.closed.code == REMOVED:
            copy = await source.open(self._open_stream, stack, follow=False)
            if copy is not None:
                async for lines in source.read(copy, _CHUNK_S):
                    yield lines

    async def _merge(
        self, sources: list[Source], chunks: list[AsyncIterator[list[LogLine]]], put: PutLines
    ) -> None:
        heads: list[tuple[int, int, int, list[LogLine]]] = []
        for at, chunk in enumerate(chunks):
            await _push(heads, at, chunk)
        batches = Batches(put)
        while heads:
            _at_ns, at, offset, lines = heapq.heappop(heads)
            await batches.add(sources[at].kernel, lines[offset])
            if offset + 1 < len(lines):
                heapq.heappush(heads, (lines[offset + 1].at_ns, at, offset + 1, lines))
            else:
                await _push(heads, at, chunks[at])
        await batches.flush()


async def _push(
    heads: list[tuple[int, int, int, list[LogLine]]], at: int, chunks: AsyncIterator[list[LogLine]]
) -> None:
    lines = await anext(chunks, None)
    if lines:
        heapq.heappush(heads, (lines[0].at_ns, at, 0, lines))
