"""Bytes that have come and are not taken yet: on the disk, so that whoever gives them goes on."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Final, Self

_LEFT_FREE_BYTES: Final = 256 << 20
_CHUNK_BYTES: Final = 256 << 10


class Spool:
    """A queue in a file without a name, which is gone with this process. One task fills it, one
    takes. Used as a context. All raise `OSError` where the disk fails.

    Args of the constructor:
        folder: on the disk that keeps it.
        left_free_bytes: with less room on the disk whoever fills waits for whoever takes.
    """

    def __init__(self, folder: Path, left_free_bytes: int = _LEFT_FREE_BYTES) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - see `__exit__`
        self._left_free_bytes = left_free_bytes
        self._put = self._taken = 0
        self._over = False
        self._news, self._empty, self._ready = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    async def fill(self, chunks: AsyncIterator[bytes]) -> None:
        """Keep all that comes."""
        async with aclosing(chunks) as coming:  # type: ignore[type-var]
            async for chunk in coming:
                if not self._has_room():
                    self._ready.set()
                    await self._empty.wait()
                self._keep(chunk)
        self._over = True
        self._ready.set()
        self._news.set()

    async def ready(self) -> None:
        """Wait until all has come, or no more will before some is taken."""
        await self._ready.wait()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Take what there is, as it comes, until all is taken."""
        file = self._file.fileno()
        while True:
            if self._taken < self._put:
                size = min(_CHUNK_BYTES, self._put - self._taken)
                data = os.pread(file, size, self._taken)
                self._taken += len(data)
                yield data
            elif self._over:
                return
            else:
                self._empty.set()
                self._news.clear()
                await self._news.wait()

    def _keep(self, chunk: bytes) -> None:
        self._empty.clear()
        if self._taken == self._put > 0:
            os.ftruncate(self._file.fileno(), 0)
            self._taken = self._put = 0
        rest = memoryview(chunk)
        while rest:
            written = os.pwrite(self._file.fileno(), rest, self._put)
            rest = rest[written:]
            self._put += written
        self._news.set()

    def _has_room(self) -> bool:
        disk = os.fstatvfs(self._file.fileno())
        return disk.f_bavail * disk.f_frsize > self._left_free_bytes
