"""Output of ranks as it comes, from before they are started until they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from phalanx_manager.core.model import Kernel, SessionRow
from phalanx_manager.http.ask import Ask
from phalanx_manager.http.logs_pieces import Put
from phalanx_manager.http.logs_read import REMOVED, Missing, Source, Wanted, may_have_output
from phalanx_manager.wake import Bell
from phalanx_wire.lifecycle import KernelState

_AWAY_S: Final = 2.0
"""After a lost link: the agent's return rings no session's bell, so look again by time."""


class Follower:
    """Follows the ranks of one session over its attempts; `run` ends when all is told."""

    def __init__(
        self, ask: Ask, row: SessionRow, kernels: Sequence[Kernel], wanted: Wanted
    ) -> None:
        self._ask = ask
        self._row = row
        self._ranks = [kernel.rank for kernel in kernels]
        self._wanted = wanted
        self._news = asyncio.Event()
        self._current = row  # of the attempt that is being told, as it was seen last

    async def run(self, put: Put, missing: Missing) -> None:
        """Hand over lines as they come."""
        with self._ask.doors.chimes.watch(self._row.session.id) as bell:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(bell))
                try:
                    while True:
                        async with asyncio.TaskGroup() as readers:
                            for rank in self._ranks:
                                readers.create_task(self._follow(rank, put, missing))
                        if not await self._next_attempt():
                            break
                finally:
                    watching.cancel()

    async def _watch(self, bell: Bell) -> None:
        """Read the session once per ring, for all readers."""
        while self._row.session.ended_at is None:
            self._row = await self._ask.again(self._row)
            self._current = self._row.of(self._current.session.attempt) or self._current
            news, self._news = self._news, asyncio.Event()
            news.set()
            await bell.wait()

    async def _next_attempt(self) -> bool:
        """Wait until the session has ended (False), or turn to its next attempt."""
        while not self._over():
            await self._news.wait()
        if self._row.session.attempt == self._current.session.attempt:
            return False
        self._current = self._row
        self._wanted = replace(self._wanted, tail=-1, positions={})  # all of it is new
        return True

    def _over(self) -> bool:
        """Tell whether the attempt that is being told has ended."""
        row = self._row.session
        return row.ended_at is not None or row.attempt != self._current.session.attempt

    async def _until(self, rank: int, good: Callable[[Kernel], bool]) -> Kernel:
        while True:
            kernel, news = self._current.kernels[rank], self._news
            if good(kernel) or kernel.ended or self._over():
                return kernel
            await news.wait()

    async def _follow(self, rank: int, put: Put, missing: Missing) -> None:
        # From here on the agent waits for the first line, so that it is here at once.
        kernel = await self._until(rank, lambda kernel: kernel.state >= KernelState.CREATED)
        if not may_have_output(kernel):
            return
        source = Source(kernel, self._wanted, self._wanted.positions.get(rank))
        removed = False
        while True:
            last_try = self._over()
            await self._read(source, put)
            closed = source.closed
            if closed is None or not closed.code:
                return
            if closed.code == REMOVED and not removed:
                removed = True
                continue
            if last_try or closed.code not in {"link_lost", "unavailable"}:
                if closed.code == "output_gone":  # or there was none: its end tells
                    kernel = await self._until(rank, lambda _: False)
                if may_have_output(kernel):
                    missing.note(kernel, closed.why or closed.code)
                return
            await self._news_or(_AWAY_S)

    async def _read(self, source: Source, put: Put) -> None:
        """Read until the end, or until it fails; `source.closed` tells."""
        now = self._current.kernels[source.kernel.rank]
        outputs = self._ask.doors.outputs
        async with outputs.reader(source, self._row.session.user) as reader:
            await reader.run(self._ask.open, now.state, put)

    async def _news_or(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return
