"""The output of containers that are gone: one file per kernel, kept for a while."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from phalanx_wire.api import LogLine
from phalanx_wire.ids import KernelId, split_kernel_id

KEEP_S: Final = 7 * 86_400.0
KEEP_BYTES: Final = 2 << 30
_LENGTH_BYTES: Final = 4
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(LogLine)

ReadLog = Callable[[str], AsyncIterator[LogLine]]


class LogStore:
    """Each file is msgpack `LogLine`s, each after its length (4 bytes, big-endian)."""

    def __init__(self, folder: Path, read_log: ReadLog) -> None:
        """Args: read_log: gives a container's whole output."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for half_made in folder.glob("*.new"):
            half_made.unlink()
        self._folder = folder
        self._read_log = read_log

    async def keep(self, kernel: KernelId, container_id: str) -> None:
        """Copy a container's whole output; had already is fine."""
        if self.has(kernel):
            return
        path = self._path(kernel)
        fresh = path.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                async for line in self._read_log(container_id):
                    packed = _ENCODER.encode(line)
                    file.write(len(packed).to_bytes(_LENGTH_BYTES, "big") + packed)
                file.flush()
                os.fsync(file.fileno())  # the container with the original goes next
            fresh.rename(path)
        finally:
            fresh.unlink(missing_ok=True)

    def has(self, kernel: KernelId) -> bool:
        """Tell whether a whole copy is there."""
        return self._path(kernel).exists()

    def lines(self, kernel: KernelId, *, since_ns: int = 0, tail: int = -1) -> Iterator[LogLine]:
        """Read a copy; the lines after a moment, and of them the last ones."""
        path = self._path(kernel)
        skip = 0
        if tail >= 0:
            skip = max(0, sum(line.at_ns > since_ns for line in _read(path)) - tail)
        for line in _read(path):
            if line.at_ns > since_ns:
                if skip:
                    skip -= 1
                else:
                    yield line

    def forget_old(self, now: float) -> int:
        """Remove what is older than `KEEP_S`, and the oldest beyond `KEEP_BYTES`; how many."""
        aged = []
        for path in self._folder.glob("*.log"):
            found = path.stat()
            aged.append((found.st_mtime, found.st_size, path))
        kept, removed = 0, 0
        for changed_at, size, path in sorted(aged, reverse=True):
            kept += size
            if now - changed_at > KEEP_S or kept > KEEP_BYTES:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _path(self, kernel: KernelId) -> Path:
        split_kernel_id(kernel)
        return self._folder / f"{kernel}.log"


def _read(path: Path) -> Iterator[LogLine]:
    try:
        with path.open("rb") as file:
            while header := file.read(_LENGTH_BYTES):
                yield _DECODER.decode(file.read(int.from_bytes(header, "big")))
    except FileNotFoundError:
        return
