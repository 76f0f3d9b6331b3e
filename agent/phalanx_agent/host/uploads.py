"""Archives that users have sent: fetched once per host, given to containers as their own files.

A sealed one stays so on the disk, and is opened as it is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import IO, BinaryIO, Final

from phalanx_agent.core.recipe import Account
from phalanx_agent.core.refused import Refused
from phalanx_wire import names, seal, sealed, tarball

_PREFIX: Final = "sha256:"
_CHUNK_BYTES: Final = 256 << 10
_WRITERS: Final = 4

Fetch = Callable[[str], AsyncIterator[bytes]]


class Uploads:
    """The archives of this host, by their digests."""

    def __init__(self, folder: Path, fetch: Fetch, secret: bytes) -> None:
        """Make the folder, and remove what an earlier process has left half-made.

        Args:
            fetch: gives the bytes of the manager's archive with a digest.
            secret: this agent's secret key, for which archives are sealed.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for half_made in folder.glob("*.new"):
            half_made.unlink()
        self._folder = folder
        self._fetch = fetch
        self._secret = secret
        # Threads of our own: readers take none, so however many wait, those that write get on.
        self._writers = ThreadPoolExecutor(_WRITERS, "upload")

    async def fetch(self, digest: str) -> None:
        """Have an archive on this host, whole and safe to unpack.

        Raises:
            Refused: what came is not what was promised, or must not be unpacked.
        """
        path = self._path(digest)
        if path.exists():
            return
        fresh = path.with_suffix(".new")
        summed = hashlib.sha256()
        try:
            with fresh.open("wb") as file:
                async with aclosing(self._fetch(digest)) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        file.write(chunk)
                        summed.update(chunk)
            if f"{_PREFIX}{summed.hexdigest()}" != digest:
                raise Refused(f"The upload {digest[:19]} arrived with another content.")
            await asyncio.to_thread(self._check, fresh, digest)
            fresh.rename(path)
        finally:
            fresh.unlink(missing_ok=True)

    async def chunks(self, digest: str, account: Account) -> AsyncIterator[bytes]:
        """Read an archive as a tar to unpack at `/`: below the upload's folder, and owned by the
        container's user.
        """
        reader, writer = os.pipe()
        stream = asyncio.StreamReader(limit=_CHUNK_BYTES)
        door, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb", buffering=0)
        )
        into = os.fdopen(writer, "wb")
        work = self._writers.submit(self._rewrite, digest, account, into)
        try:
            while chunk := await stream.read(_CHUNK_BYTES):
                yield chunk
            await asyncio.wrap_future(work)
        finally:
            door.close()
            if work.cancel():
                into.close()

    def forget_all_but(self, digests: Iterable[str]) -> None:
        """Remove the archives that no kernel of this host needs any more."""
        wanted = {self._path(digest) for digest in digests}
        for path in self._folder.glob("*.tar"):
            if path not in wanted:
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        name = digest.removeprefix(_PREFIX)
        if len(name) != hashlib.sha256().digest_size * 2 or not name.isalnum():
            raise Refused(f"{digest[:80]!r} is no upload.")
        return self._folder / f"{name}.tar"

    def _open(self, path: Path) -> BinaryIO:
        """Open an archive as the tar that its user has packed.

        Raises:
            BrokenSealError: it is not for this host, or was changed.
        """
        file = path.open("rb")
        start = file.read(len(sealed.MAGIC))
        file.seek(0)
        if not sealed.is_sealed(start):
            return file
        try:
            return seal.opened(file, self._secret)
        except sealed.BrokenSealError:
            file.close()
            raise

    def _check(self, path: Path, digest: str) -> None:
        """Look at the whole of an archive before anything of it is unpacked."""
        try:
            with self._open(path) as file:
                while file.read(_CHUNK_BYTES):
                    pass  # whatever is sealed shows by being read that it is whole
                tarball.check(file)
        except sealed.BrokenSealError as error:
            raise _shut(digest, error) from error
        except tarball.UnsafeArchiveError as error:
            raise Refused(f"The upload {digest[:19]} must not be unpacked: {error}.") from error

    def _rewrite(self, digest: str, account: Account, into: IO[bytes]) -> None:
        """Copy an archive with other names and owners. A consumer that went away ends it."""
        root = names.UPLOAD_MOUNT.removeprefix("/")
        try:
            with (
                into,
                self._open(self._path(digest)) as packed,
                tarfile.open(fileobj=packed, mode="r:") as source,
                tarfile.open(fileobj=into, mode="w|") as sink,
            ):
                top = tarfile.TarInfo(root)
                top.type, top.mode = tarfile.DIRTYPE, 0o755
                sink.addfile(_owned(top, account))
                for member in source:
                    content = source.extractfile(member) if member.isreg() else None
                    sink.addfile(_owned(_inside(member, root), account), content)
        except BrokenPipeError:
            return
        except sealed.BrokenSealError as error:
            raise _shut(digest, error) from error


def _shut(digest: str, error: sealed.BrokenSealError) -> Refused:
    return Refused(f"The upload {digest[:19]} cannot be opened here: {error}.")


def _inside(member: tarfile.TarInfo, root: str) -> tarfile.TarInfo:
    """Put a member of an archive below a folder."""
    inside = tarfile.data_filter(member, f"/{root}")
    mode = member.mode & 0o777 if inside.mode is None else inside.mode
    changed = inside.replace(name=f"{root}/{inside.name}", mode=mode, deep=False)
    if changed.islnk():
        changed = changed.replace(linkname=f"{root}/{changed.linkname}", deep=False)
    return changed


def _owned(member: tarfile.TarInfo, account: Account) -> tarfile.TarInfo:
    member.uid, member.gid = account.uid, account.gid
    member.uname = member.gname = ""
    return member
