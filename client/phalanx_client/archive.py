"""Folders to tar archives and back."""

from __future__ import annotations

import os
import secrets
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import BinaryIO

from phalanx_client import ignore, output
from phalanx_client.ansi import escape
from phalanx_client.failure import BAD_INPUT, NOT_FOUND, Failure
from phalanx_client.undo import undone

EPOCH = 315_532_800
"""1980-01-01: the oldest time that every archiver can write (a .zip can't go further back)."""


def pack_upload(folder: str) -> tuple[BinaryIO, int]:
    """A folder's contents as an archive that only depends on them: sorted, without times, owners.

    Returns:
        The archive in an unnamed temporary file, at its beginning, and its length.

    Raises:
        Failure: no such folder, or something in it that can't travel.
    """
    if not os.path.isdir(folder):
        raise Failure(f"{folder} is no folder; --upload takes the folder to send", NOT_FOUND)
    rules = _rules(folder)

    def fill(archive: tarfile.TarFile) -> None:
        for path, name in _walk(folder, "", rules):
            _add(archive, path, name, plain=True, top=folder)

    return _packed(fill)


def pack_copy(source: str, name: str) -> tuple[BinaryIO, int]:
    """A file or folder, called `name` in the archive, with its times and modes."""
    if not os.path.lexists(source):
        raise Failure(f"{source} does not exist", NOT_FOUND)

    def fill(archive: tarfile.TarFile) -> None:
        real = os.path.realpath(source) if os.path.isfile(source) else source
        _add(archive, real, name, plain=False, top="")
        if os.path.isdir(source):
            for path, inside in _walk(source, "", ()):
                _add(archive, path, f"{name}/{inside}", plain=False, top="")

    return _packed(fill)


def count(packed: BinaryIO) -> int:
    """The number of entries of an archive; leaves it at its beginning."""
    with tarfile.open(fileobj=packed, mode="r:") as archive:
        found = len(archive.getnames())
    packed.seek(0)
    return found


def unnamed(write: Callable[[BinaryIO], object], what: str) -> tuple[BinaryIO, int]:
    """What was written to a file that has no name, at its beginning, and its length.

    Raises:
        Failure: a file can't be read, which is named, or `what` can't be written.
    """
    with ExitStack() as undo:
        target = undo.enter_context(tempfile.TemporaryFile())
        try:
            write(target)
        except OSError as error:
            raise Failure(f"{error.filename or what}: {error.strerror}") from error
        undo.pop_all()
    length = target.seek(0, os.SEEK_END)
    target.seek(0)
    return target, length


def _packed(fill: Callable[[tarfile.TarFile], None]) -> tuple[BinaryIO, int]:
    def write(target: BinaryIO) -> None:
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
            fill(archive)

    return unnamed(write, "the archive")


def _rules(folder: str) -> tuple[ignore.Rule, ...]:
    try:
        with open(os.path.join(folder, ignore.FILE), encoding="utf-8") as file:
            return ignore.rules(file.read().splitlines())
    except FileNotFoundError:
        return ignore.rules(ignore.DEFAULT)


def _walk(folder: str, below: str, rules: tuple[ignore.Rule, ...]) -> Iterator[tuple[str, str]]:
    """(path, name in the archive) of everything in a folder, parents first, sorted by name."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = f"{below}{entry.name}"
        is_folder = entry.is_dir(follow_symlinks=False)
        if ignore.ignored(name, folder=is_folder, by=rules):
            continue
        yield entry.path, name
        if is_folder:
            yield from _walk(entry.path, f"{name}/", rules)


def _add(archive: tarfile.TarFile, path: str, name: str, *, plain: bool, top: str) -> None:
    found = os.lstat(path)
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(found.st_mode)
    info.mtime = found.st_mtime
    if plain:
        info.mode = 0o755 if stat.S_ISDIR(found.st_mode) or found.st_mode & 0o100 else 0o644
        info.mtime = EPOCH
    match stat.S_IFMT(found.st_mode):
        case stat.S_IFREG:
            info.size = found.st_size
            with open(path, "rb") as file:
                archive.addfile(info, file)
        case stat.S_IFDIR:
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        case stat.S_IFLNK:
            info.type = tarfile.SYMTYPE
            info.linkname = os.readlink(path)
            if top:
                _check_link(path, info.linkname, top)
            archive.addfile(info)
        case _:
            raise Failure(
                f"{path} is neither file, folder nor link and can't be sent; "
                f"name it in {ignore.FILE} or remove it",
                BAD_INPUT,
            )


def _check_link(path: str, target: str, top: str) -> None:
    """Refuse a link that leaves the tree: in the container it would lead somewhere else."""
    inside = os.path.abspath(top)
    leads = os.path.abspath(os.path.join(os.path.dirname(path), target))
    if os.path.isabs(target) or os.path.commonpath([inside, leads]) != inside:
        raise Failure(
            f"{path} links to {target}, outside of what is sent; "
            f"name it in {ignore.FILE} or put the file itself there",
            BAD_INPUT,
        )


def unpack_copy(source: BinaryIO, target: str, name: str | None = None) -> int:
    """Write an archive of one file or folder, as it comes from a container, to a local path.

    Into `target` if that is a folder, else as `target`; nothing is left beside it. A file takes its
    place when all of it has come. Names that would leave `target` and devices are refused; links
    that lead elsewhere here are left out.

    Args:
        name: what was asked for is called so in a folder; None is as the archive says, and empty
            where it has no name: its contents are.

    Returns:
        The number of entries written.
    """
    into = os.path.isdir(target)
    folder = target if into else os.path.dirname(target) or "."
    if not os.path.isdir(folder):
        raise Failure(f"{folder} does not exist; make it first: mkdir -p {folder}", NOT_FOUND)
    copied = _Copied(name if into else os.path.basename(target.rstrip("/")), whole=name == "")
    count = 0
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for member in archive:
                placed = copied.place(member)
                if placed is not None:
                    _extract(archive, placed, folder)
                    count += 1
    except tarfile.FilterError as error:
        raise _unsafe(str(error)) from error
    except (tarfile.TarError, KeyError, ValueError, OverflowError) as error:
        # The last three: a link to what is not there, a name with NUL, a time that no file has.
        raise Failure(f"the container's archive ended early or is damaged: {error}") from error
    except OSError as error:
        raise Failure(f"{error.filename or folder}: {error.strerror}") from error
    return count


def _unsafe(why: str) -> Failure:
    return Failure(f"the container's archive was refused: {escape(why)}", BAD_INPUT)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: str) -> None:
    """Write one entry, a file beside its place first: an archive may break off in the midst of it,
    and what lies there shall stay until then.
    """
    path = os.path.join(folder, member.name)
    if not member.isdir() and os.path.islink(path):
        os.unlink(path)  # what is written shall not go to where it leads
    own = not os.path.lexists(path) or stat.S_ISREG(os.lstat(path).st_mode)
    if not (member.isreg() and own and os.access(os.path.dirname(path) or ".", os.W_OK)):
        archive.extract(member, folder, filter="data")
        return
    above, _, _ = member.name.rpartition("/")
    draft = os.path.join(above, f".phalanx-cp-{secrets.token_hex(8)}")
    written = os.path.join(folder, draft)

    def undo() -> None:
        with suppress(FileNotFoundError):
            os.unlink(written)

    try:
        with undone(undo):
            archive.extract(member.replace(name=draft, deep=False), folder, filter="data")
            os.replace(written, path)
    except BaseException:
        undo()
        raise


class _Copied:
    """Where the entries of one archive may lie: below one name, and behind no link of its own.

    An archive may name a link, and then what lies behind it. Python's own filter lets that be as
    long as all stays in the folder that is written to, and that may be the user's home.
    """

    def __init__(self, base: str | None, *, whole: bool) -> None:
        """Args: whole: names have no first part that `base` stands for."""
        self._base = base
        self._whole = whole
        self._first: str | None = None
        self._links: set[str] = set()

    def place(self, member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """An entry as it shall be written; None when it is left out.

        Raises:
            Failure: it must not be written, nor anything after it.
        """
        path = self._path(member.name)
        parents = (path[:at] for at, char in enumerate(path) if char == "/")
        if path in self._links or any(parent in self._links for parent in parents):
            raise _unsafe(f"{member.name!r} lies behind a link")
        link = member.linkname
        if member.islnk():
            link = self._path(link)
            if link in self._links:
                self._links.add(path)
        if member.issym():
            if self._leads_out(path, link):
                output.note(escape(f"left out: {member.name.strip('/')} is a link to {link}"))
                return None
            self._links.add(path)
        return member.replace(name=path, linkname=link, deep=False)

    def _path(self, name: str) -> str:
        first, *below = name.strip("/").split("/")
        if not self._whole:
            self._first = self._first if self._first is not None else first
            if first != self._first:
                raise _unsafe(f"{name!r} is not in {self._first!r}")
            first = first if self._base is None else self._base
        elif self._base:
            first, below = self._base, [first, *below]
        parts = [part for part in (first, *below) if part not in ("", ".")]
        if ".." in parts:
            raise _unsafe(f"{name!r} leads out")
        return "/".join(parts) or "."

    def _leads_out(self, path: str, link: str) -> bool:
        """Whether a link leads out of what is copied, or may by way of another one."""
        parts = [part for part in link.split("/") if part not in ("", ".")]
        ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
        depth = path.count("/") - (1 if self._base or not self._whole else 0)
        return link.startswith("/") or ups > depth or ".." in parts[ups:]


def first_is_folder(data: bytes) -> bool | None:
    """Whether the first entry of an archive is a folder, by its first bytes; None: can't tell."""
    try:
        header = tarfile.TarInfo.frombuf(data[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return header.isdir()
