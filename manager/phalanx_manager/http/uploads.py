"""Archives that sessions unpack: kept by their digest, checked before anybody may name them.

Of a sealed one only its recipients can be read here.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from phalanx_manager.http.problems import refused
from phalanx_manager.store.port import Unavailable
from phalanx_wire import sealed, tarball
from phalanx_wire.ids import AgentId
from phalanx_wire.mux import Stream
from phalanx_wire.stream import CHUNK_BYTES, STDOUT, UploadCall

_DIGEST: Final = re.compile(r"sha256:(?P<hex>[0-9a-f]{64})")
_ROOM_BYTES: Final = 256 << 20
_AT_ONCE: Final = 4
"""Of one user: whoever sends slowly keeps nobody else from sending."""

_UNUSED_S: Final = 3600.0
_READ_BYTES: Final = 16 * CHUNK_BYTES

log = structlog.get_logger(__name__)


def is_digest(text: str) -> bool:
    """Tell whether a text is `sha256:` and 64 hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


class Uploads:
    """A folder of archives named by their digests.

    Attributes:
        max_bytes: of one archive.
    """

    def __init__(self, folder: Path, max_bytes: int = 2 << 30) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._incoming = folder / "incoming"
        self._busy = Counter[str]()
        self._serial = 0

    def prepare(self) -> None:
        """Make the folder, and remove what an earlier process has left half-made.

        Raises:
            Unavailable: it cannot be used.
        """
        try:
            self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
            for draft in self._incoming.iterdir():
                draft.unlink()
        except OSError as error:
            where, why = str(error.filename or self._folder), error.strerror
            raise Unavailable(where, f"cannot be used: {why}", "mend or remove it") from error

    def has(self, digest: str) -> bool:
        """Tell whether an archive is there."""
        return is_digest(digest) and self._path(digest).exists()

    def recipients(self, digest: str) -> frozenset[str] | None:
        """Read whose keys open an archive that is there, Z85; None: it is not sealed.

        Raises:
            Refused: it was removed meanwhile.
        """
        try:
            with open(self._path(digest), "rb") as file:
                return sealed.read_header(file).recipients if _is_sealed(file) else None
        except FileNotFoundError as error:
            raise refused("upload_unknown", 422, "the archive is gone", "upload") from error

    async def store(self, user: str, pieces: AsyncIterator[bytes]) -> tuple[str, int]:
        """Keep a user's archive; returns its digest and size.

        Raises:
            Refused: it is unsafe, too large, too slow, or there is no room.
        """
        if self._busy[user] >= _AT_ONCE:
            title = f"{_AT_ONCE} of your uploads are under way"
            raise refused("too_many_requests", 429, title, hint="try again")
        self._busy[user] += 1
        self._serial += 1
        draft = self._incoming / f"{os.getpid()}-{self._serial}"
        try:
            with open(draft, "xb") as file:
                digest, size = await self._write(file, pieces)
            await asyncio.to_thread(_check, draft)
            os.replace(draft, self._path(digest))
            await asyncio.to_thread(_sync_folder, self._folder)
        except OSError as error:
            raise refused(
                "upload_failed", 507, f"the archive cannot be kept: {error.strerror}"
            ) from error
        finally:
            draft.unlink(missing_ok=True)
            self._busy[user] -= 1
            self._busy += Counter()  # forgets those without any
        return digest, size

    async def _write(self, file: BinaryIO, pieces: AsyncIterator[bytes]) -> tuple[str, int]:
        hashed = hashlib.sha256()
        size = 0
        async for piece in pieces:
            size += len(piece)
            disk = os.statvfs(self._folder)  # others write there, too
            if disk.f_bavail * disk.f_frsize < _ROOM_BYTES:
                raise refused("upload_failed", 507, "the manager's disk is full")
            hashed.update(piece)
            await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(_sync, file)
        return f"sha256:{hashed.hexdigest()}", size

    def forget(self, live: Collection[str]) -> int:
        """Remove archives that no live session names and that are an hour old; returns how many."""
        removed = 0
        oldest = time.time() - _UNUSED_S
        for path in self._folder.glob("sha256-*"):
            digest = path.name.replace("-", ":", 1)
            if digest not in live and path.stat().st_mtime < oldest:
                path.unlink()
                removed += 1
        if removed:
            log.info("uploads.forgotten", archives=removed)
        return removed

    async def serve(self, agent: AgentId, stream: Stream) -> None:
        """Answer an agent that has opened a stream: it may ask for archives only."""
        call = stream.call
        if not isinstance(call, UploadCall):
            await stream.close(code="unknown_call", why="agents may not ask for this")
            return
        if not self.has(call.digest):
            log.warning("uploads.unknown", agent=agent, digest=call.digest[:80])
            await stream.close(code="upload_unknown", why="the archive is not here any more")
            return
        with open(self._path(call.digest), "rb") as file:
            while data := await asyncio.to_thread(file.read, _READ_BYTES):
                await stream.write(STDOUT, data)
        await stream.close()

    def _path(self, digest: str) -> Path:
        match = _DIGEST.fullmatch(digest)
        assert match is not None  # noqa: S101 - callers have looked
        return self._folder / f"sha256-{match['hex']}"


def _check(draft: Path) -> None:
    with open(draft, "rb") as file:
        try:
            if _is_sealed(file):
                sealed.read_header(file)
            else:
                tarball.check(file)
        except sealed.BrokenSealError as error:
            title = f"the sealed archive cannot be read: {error}"
            raise refused("broken_seal", 400, title, hint="seal and send it again") from error
        except tarball.UnsafeArchiveError as error:
            raise refused(
                "unsafe_archive",
                400,
                str(error),
                hint="make it with `tar -cf` in the folder itself; the client does so",
            ) from error


def _is_sealed(file: BinaryIO) -> bool:
    """Tell by an archive's first bytes; leaves it at its beginning."""
    start = file.read(len(sealed.MAGIC))
    file.seek(0)
    return sealed.is_sealed(start)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk: a session may be accepted that relies on one."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
