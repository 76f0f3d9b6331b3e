"""Bytes that have come and are not taken yet: on the disk, so that whoever gives them goes on."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, ParamSpec, Self, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_LEFT_FREE_BYTES: Final = 256 << 20
_CHUNK_BYTES: Final = 256 << 10

_DISK: Final = ThreadPoolExecutor(1, "spool")
"""A disk lets whoever writes much wait. One thread does all, so a file is closed after its use."""


class Spool:
    """A queue in a file without a name, which is gone with this process. One task fills it, one
    takes. Used as a context. While the disk has no room each chunk waits until it is taken.

    Args of the constructor:
        folder: on the disk that keeps it.
        left_free_bytes: of the disk, for others.
    """

    def __init__(self, folder: Path, left_free_bytes: int = _LEFT_FREE_BYTES) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._left_free_bytes = left_free_bytes
        self._put = self._taken = 0
        self._passing = b""  # what does not go by the disk
        self._over = False
        self._news, self._empty, self._ready = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _DISK.submit(self._close)

    async def fill(self, chunks: AsyncIterator[bytes]) -> None:
        """Keep all that comes.

        Raises:
            OSError: the disk failed.
        """
        async with aclosing(chunks) as coming:  # type: ignore[type-var]
            async for chunk in coming:
                self._empty.clear()
                if await _on_disk(self._keep, chunk):
                    self._news.set()
                else:
                    await self._pass(chunk)
        self._over = True
        self._ready.set()
        self._news.set()

    async def ready(self) -> None:
        """Wait until all has come, or no more will before some is taken."""
        await self._ready.wait()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Take what there is, as it comes, until all is taken."""
        while True:
            if self._file is not None and self._taken < self._put:
                yield await _on_disk(self._take, self._file)
            elif self._passing:
                data, self._passing = self._passing, b""
                yield data
            elif self._over:
                return
            else:
                self._empty.set()
                self._news.clear()
                await self._news.wait()

    def _keep(self, chunk: bytes) -> bool:
        file = self._file = self._file or self._open()
        if file is None or not self._has_room(file):
            return False
        if self._taken == self._put > 0:
            os.ftruncate(file.fileno(), 0)
            self._taken = self._put = 0
        rest = memoryview(chunk)
        while rest:
            written = os.pwrite(file.fileno(), rest, self._put)
            rest = rest[written:]
            self._put += written
        return True

    def _open(self) -> BinaryIO | None:
        try:
            return tempfile.TemporaryFile(dir=self._folder, buffering=0)
        except OSError:  # no room even for its name
            return None

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _take(self, file: BinaryIO) -> bytes:
        size = min(_CHUNK_BYTES, self._put - self._taken)
        data = os.pread(file.fileno(), size, self._taken)
        self._taken += len(data)
        return data

    async def _pass(self, chunk: bytes) -> None:
        self._passing = chunk  # after all that is on the disk, and nothing follows before
        self._ready.set()
        self._news.set()
        await self._empty.wait()

    def _has_room(self, file: BinaryIO) -> bool:
        disk = os.fstatvfs(file.fileno())
        return disk.f_bavail * disk.f_frsize > self._left_free_bytes


async def _on_disk(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    return await asyncio.get_running_loop().run_in_executor(_DISK, partial(work, *args, **kwargs))
