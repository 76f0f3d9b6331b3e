"""Bells: they say "look again" and carry nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """Wakes one waiter; rung while nobody waits, it is remembered once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake the waiter, now or when it comes."""
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until rung; False when the time ran out first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Chimes:
    """Many bells by topic (a session id); whoever watches None hears every topic."""

    def __init__(self) -> None:
        self._bells: dict[str | None, set[Bell]] = {}

    def ring(self, topic: str) -> None:
        """Ring all who watch this topic, or all topics."""
        for watched in (topic, None):
            for bell in self._bells.get(watched, ()):
                bell.ring()

    @contextmanager
    def watch(self, topic: str | None) -> Iterator[Bell]:
        """Hear a topic while the context is open; look once after entering, then wait."""
        bell = Bell()
        bells = self._bells.setdefault(topic, set())
        bells.add(bell)
        try:
            yield bell
        finally:
            bells.discard(bell)
            if not bells:
                self._bells.pop(topic, None)
