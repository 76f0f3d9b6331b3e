"""Whose turn it is: one name at a time, with all who come in that name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """A lock that belongs to a name: those of one name are inside together, others wait."""

    def __init__(self) -> None:
        self._name = ""
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Wait until nobody of another name is inside, and be inside."""
        while self._inside and self._name != name:
            await self._empty.wait()
        self._name = name
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()
