"""Whose turn it is where many wait: going round by name, and to nobody all there is."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


def may_have_more(name: str, held: Counter[str], places: int) -> bool:
    """Tell whether a name may have one place more: of several none has more than half of what the
    others leave, so that who comes next still finds one.
    """
    own, everybodys = held[name], held.total()
    return everybodys < places and own < max(1, (places - (everybodys - own)) // 2)


class Rounds:
    """Places for a few at once. Who waits in a name waits for the others of that name, and of
    each other name for one at most. A place is passed on by the event loop, which does in between
    what else there is to do: a holder may keep it busy, those who come next do not add to that.
    """

    def __init__(self, places: int = 1) -> None:
        self._places = places
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the next name first

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Wait for a place, and have it."""
        await self._come(name)
        try:
            yield
        finally:
            self._leave(name)

    async def _come(self, name: str) -> None:
        if may_have_more(name, self._held, self._places):
            self._held[name] += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was given at that moment
                self._leave(name)
            raise

    def _leave(self, name: str) -> None:
        asyncio.get_running_loop().call_soon(self._pass_on, name)

    def _pass_on(self, name: str) -> None:
        self._held[name] -= 1
        self._held += Counter()  # forgets those without any
        for waiting in list(self._waiting):
            if may_have_more(waiting, self._held, self._places):
                self._give(waiting)

    def _give(self, name: str) -> None:
        """Give a place to the first who waits in a name and has not left."""
        queue = self._waiting.pop(name)
        while queue:
            place = queue.popleft()
            if not place.done():
                place.set_result(None)
                self._held[name] += 1
                if queue:
                    self._waiting[name] = queue  # behind all other names
                return
