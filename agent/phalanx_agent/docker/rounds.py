"""Whose turn it is where many wait: one after the other, going round by name."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Rounds:
    """Places for a few at once. Who waits in a name waits for the others of that name, and of
    each other name for one at most. A place is passed on by the event loop, which does in between
    what else there is to do: a holder may keep it busy, those who come next do not add to that.
    """

    def __init__(self, places: int = 1) -> None:
        self._free = places
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the next name first

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Wait for a place, and have it."""
        await self._come(name)
        try:
            yield
        finally:
            self._leave()

    async def _come(self, name: str) -> None:
        if self._free:
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was given at that moment
                self._leave()
            raise

    def _leave(self) -> None:
        asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        while self._waiting:
            name = next(iter(self._waiting))
            queue = self._waiting.pop(name)
            place = queue.popleft()
            if queue:
                self._waiting[name] = queue  # behind all other names
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
