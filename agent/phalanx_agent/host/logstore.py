"""The output of containers that are gone: one file per kernel, kept for a while."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final, Protocol

import msgspec

from phalanx_wire.api import LogLine
from phalanx_wire.ids import KernelId, split_kernel_id

KEEP_S: Final = 7 * 86_400.0
KEEP_BYTES: Final = 2 << 30
_LENGTH_BYTES: Final = 4
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(LogLine)

_PIECE_BYTES: Final = 16 << 10


class ReadLog(Protocol):
    """An engine's way to give a container's whole output, in pieces."""

    def __call__(self, container_id: str, /, *, session: str) -> AsyncIterator[Iterator[LogLine]]:
        """See `docker.port.Docker.logs`."""


class LogStore:
    """Each file is msgpack `LogLine`s, each after its length (4 bytes, big-endian)."""

    def __init__(self, folder: Path, read_log: ReadLog) -> None:
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
                session, _, _ = split_kernel_id(kernel)
                pieces = self._read_log(container_id, session=session)
                async with aclosing(pieces):  # type: ignore[type-var] # whatever ends this
                    async for piece in pieces:
                        for line in piece:
                            packed = _ENCODER.encode(line)
                            file.write(len(packed).to_bytes(_LENGTH_BYTES, "big") + packed)
                file.flush()
                # The container with the original goes next. A busy disk takes its time.
                await asyncio.to_thread(os.fsync, file.fileno())
            fresh.rename(path)
        finally:
            fresh.unlink(missing_ok=True)

    def has(self, kernel: KernelId) -> bool:
        """Tell whether a whole copy is there."""
        return self._path(kernel).exists()

    def lines(
        self, kernel: KernelId, *, since_ns: int = 0, tail: int = -1
    ) -> Iterator[Iterator[LogLine]]:
        """Read a copy; the lines after a moment, and of them the last ones.

        A small piece of the file at a time is taken apart as it is iterated: wholly, before the
        next is asked for. The last lines are counted first, in pieces that give none.
        """
        path = self._path(kernel)
        wanted = _Wanted(since_ns)
        if tail >= 0:
            for piece in _read(path):
                yield wanted.count(piece)
            wanted.skip -= tail
        for piece in _read(path):
            yield wanted.of(piece)

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


class _Wanted:
    """The lines after a moment, without the first `skip` of them."""

    def __init__(self, since_ns: int) -> None:
        self.skip = 0
        self._since_ns = since_ns

    def count(self, lines: Iterator[LogLine]) -> Iterator[LogLine]:
        """Let `skip` be all of them; no line is given."""
        self.skip += sum(line.at_ns > self._since_ns for line in lines)
        yield from ()

    def of(self, lines: Iterator[LogLine]) -> Iterator[LogLine]:
        """Choose them."""
        for line in lines:
            if line.at_ns > self._since_ns:
                if self.skip > 0:
                    self.skip -= 1
                else:
                    yield line


def _read(path: Path) -> Iterator[Iterator[LogLine]]:
    entries = _Entries()
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE_BYTES):
                yield entries.take(piece)
    except FileNotFoundError:
        return


class _Entries:
    """Takes a file apart, wherever its pieces are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, piece: bytes) -> Iterator[LogLine]:
        """Take a piece; the lines that it completes."""
        data, at = self._rest + piece, 0
        while at + _LENGTH_BYTES <= len(data):
            begin = at + _LENGTH_BYTES
            end = begin + int.from_bytes(data[at:begin], "big")
            if end > len(data):
                break
            yield _DECODER.decode(data[begin:end])
            at = end
        self._rest = data[at:]
