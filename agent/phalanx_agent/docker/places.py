"""Places that are lent: others get those of whoever has had one for long, or does not use it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from math import inf
from typing import Final
from weakref import WeakValueDictionary

from phalanx_agent.docker.rounds import may_have_more

REST_S: Final = 1.0
"""For so long a place is left to who does nothing in it."""

HOLD_S: Final = 2.0
"""For so long it is left to who goes on working in it, when others want one."""

_LOOK_S: Final = 0.02
"""Until those are looked at again who may lose their places and work at that moment."""


class Place:
    """One of them.

    Attributes:
        lost: others have it now.
    """

    def __init__(self, name: str) -> None:
        self.lost = False
        self.name = name
        self._begun_at: float | None = None
        self._rests_since: float | None = None
        self._give_up: Callable[[], object] = lambda: None

    @contextmanager
    def resting(self, give_up: Callable[[], object]) -> Iterator[None]:
        """Do in the block what may take long and needs no place, which may be lost meanwhile.

        Args:
            give_up: called at that moment.
        """
        self._give_up = give_up
        self._rests_since = asyncio.get_running_loop().time()
        self._begun_at = self._begun_at or self._rests_since
        try:
            yield
        finally:
            self._rests_since = None

    @property
    def rests(self) -> bool:
        """Whether it is not used just now."""
        return self._rests_since is not None

    def due_at(self, name: str) -> float:
        """Tell from when on one of a name may have it while it rests; not before anything came of
        it. Those of its own name do not cut it short: each time costs an engine a new beginning.
        """
        if self._begun_at is None:
            return inf
        held_until = inf if name == self.name else self._begun_at + HOLD_S
        rested_until = inf if self._rests_since is None else self._rests_since + REST_S
        return min(held_until, rested_until)

    def lose(self) -> None:
        """Be taken away."""
        self.lost = True
        self._give_up()


class Places:
    """So many of them. Those of one name wait for each other."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._doors: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._held: set[Place] = set()
        self._left = asyncio.Event()

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[Place]:
        """Wait for a place, and have it until the end of the block or until it is lost."""
        place = Place(name)
        async with self._doors.setdefault(name, asyncio.Lock()):
            while not may_have_more(name, self._by_name(), self._count):
                await self._one_less(name)
            self._held.add(place)
        try:
            yield place
        finally:
            self._leave(place)

    async def _one_less(self, name: str) -> None:
        """Take a place away, or wait until one has left or may be taken."""
        now = asyncio.get_running_loop().time()
        held = self._by_name()
        may_take = [
            place
            for place in self._held
            if place.name == name or may_have_more(name, held - Counter([place.name]), self._count)
        ]
        resting = [place for place in may_take if place.rests and place.due_at(name) <= now]
        if resting:
            longest = min(resting, key=lambda place: place.due_at(name))
            longest.lose()
            self._leave(longest)
            return
        # Who comes to rest meanwhile may be due before this one is, and not before `REST_S`.
        wait_s = min(place.due_at(name) for place in may_take) - now
        self._left.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(max(wait_s, _LOOK_S), REST_S)):
                await self._left.wait()

    def _by_name(self) -> Counter[str]:
        return Counter(place.name for place in self._held)

    def _leave(self, place: Place) -> None:
        self._held.discard(place)
        self._left.set()
