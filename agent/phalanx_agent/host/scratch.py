"""A kernel's files on its host: material in memory, the marker of a begun start on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from phalanx_agent.core.recipe import Account
from phalanx_agent.core.seen import Noted
from phalanx_agent.host import keys
from phalanx_agent.host.command_notes import CommandNotes
from phalanx_agent.host.remains import ID
from phalanx_runner import lease
from phalanx_wire.ids import KernelId, split_kernel_id

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_PUBLIC: Final = "public.json"
_NOTED: Final = "noted.json"
_PRIVATE_MODE: Final = 0o400
_TEXT_MODE: Final = 0o444
_FOLDER_MODE: Final = 0o755


class NotInMemory(Exception):  # noqa: N818 - a state of the machine
    """The folder for keys is on a disk; the text says what to do."""


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """The public halves of a kernel's keys, OpenSSH one-line form."""

    host: str
    user: str


class Scratch:
    """All kernels' files. Material is made beside its place and moved there when it is whole.

    Attributes:
        commands: notes of what is run beside the kernels' own commands.
    """

    def __init__(self, runtime_dir: Path, state_dir: Path) -> None:
        """Make the folders.

        Args:
            runtime_dir: must be in the host's memory.
            state_dir: on disk.

        Raises:
            NotInMemory: `runtime_dir` is on a disk.
            OSError: a folder cannot be made.
        """
        runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        kind = file_system(runtime_dir)
        if kind not in _IN_MEMORY:
            raise NotInMemory(
                f"runtime_dir {runtime_dir} is on {kind}, but private keys may lie in memory only; "
                f"mount one there: mount -t tmpfs -o mode=0700 tmpfs {runtime_dir}"
            )
        runtime_dir.chmod(0o700)
        self._material = runtime_dir / "k"
        self._material.mkdir(mode=0o700, exist_ok=True)
        self.commands = CommandNotes(runtime_dir)
        self._marks = state_dir / "started"
        self._marks.mkdir(mode=0o700, parents=True, exist_ok=True)
        for half_made in self._material.glob(".*"):
            shutil.rmtree(half_made)
        for half_made in self._marks.glob(".*"):
            half_made.unlink()

    def folder(self, kernel: KernelId) -> Path:
        """Say where the material is, or will be."""
        split_kernel_id(kernel)
        return self._material / kernel

    def public_keys(self, kernel: KernelId) -> PublicKeys | None:
        """Read the keys of whole material; None when there is none."""
        try:
            known = json.loads((self._material / f"{kernel}.{_PUBLIC}").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return PublicKeys(known["host"], known["user"]) if self.folder(kernel).is_dir() else None

    def make(self, kernel: KernelId, texts: Mapping[str, str], account: Account) -> PublicKeys:
        """Make keys, and write them with the texts by their relative names; whole or not at all.

        Private files belong to the container's user, because OpenSSH refuses a key of its own
        user that others may read, and cannot read one of somebody else's that they may not.
        """
        folder = self.folder(kernel)
        fresh = folder.with_name(f".{kernel}")
        shutil.rmtree(fresh, ignore_errors=True)
        host, user = keys.fresh(), keys.fresh()
        try:
            for part in (fresh, fresh / "ssh", fresh / "ssh/.ssh"):
                part.mkdir()
                part.chmod(_FOLDER_MODE)
            for name, text in texts.items():
                _write(fresh / name, text.encode(), _TEXT_MODE)
            _write(fresh / "ssh/host_key", host.dropbear(), _PRIVATE_MODE, account)
            _write(fresh / "ssh/id_ed25519", user.openssh(), _PRIVATE_MODE, account)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)  # private keys may be in it
            raise
        public = PublicKeys(host.public, user.public)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
        _write(
            self._material / f"{kernel}.{_PUBLIC}",
            json.dumps({"host": public.host, "user": public.user}).encode(),
            _PRIVATE_MODE,
        )
        return public

    def text(self, kernel: KernelId, name: str) -> str:
        """Read a text of material that is there."""
        return (self.folder(kernel) / name).read_text(encoding="utf-8")

    def put(self, kernel: KernelId, texts: Mapping[str, str]) -> None:
        """Write texts into material that is there, each of them whole or not at all.

        The ssh server wants `authorized_keys` to be root's or its user's, and so they are root's.
        """
        folder = self.folder(kernel)
        for name, text in texts.items():
            path = folder / name
            fresh = path.with_name(f".{path.name}.new")
            _write(fresh, text.encode(), _TEXT_MODE)
            fresh.rename(path)

    def write_lease(self, kernel: KernelId, until_s: float) -> None:
        """Tell the runner when all has to be over, CLOCK_BOOTTIME; it finds the old or the new."""
        path = self.folder(kernel) / lease.FILE
        fresh = path.with_name(f".{path.name}.new")
        _write(fresh, lease.spell(until_s).encode(), _TEXT_MODE)
        fresh.rename(path)

    def lease(self, kernel: KernelId) -> float | None:
        """Read what the runner was told; None when it was told nothing."""
        try:
            return lease.parse((self.folder(kernel) / lease.FILE).read_text("ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def note(self, kernel: KernelId, noted: Noted) -> None:
        """Keep what the next process must know; it finds the old or the new."""
        path = self._material / f"{kernel}.{_NOTED}"
        fresh = path.with_name(f".{path.name}.new")
        text = json.dumps(
            {"fenced": noted.fenced, "notices": dict(noted.notices), "life": noted.life}
        )
        _write(fresh, text.encode(), _PRIVATE_MODE)
        fresh.rename(path)

    def noted(self, kernel: KernelId) -> Noted:
        """Read what was noted."""
        try:
            known = json.loads((self._material / f"{kernel}.{_NOTED}").read_bytes())
        except FileNotFoundError:
            return Noted()
        return Noted(known["fenced"], known["notices"], known.get("life", 0.0))

    def begun(self, kernel: KernelId) -> str | None:
        """Tell the id of the container whose start was once begun, '' if it is not known; None when
        no start was.
        """
        try:
            told = (self._marks / kernel).read_text("ascii", errors="replace")
        except FileNotFoundError:
            return None
        return told if ID.fullmatch(told) else ""  # a host that lost its power may have kept half

    def mark(self, kernel: KernelId, container_id: str) -> None:
        """Note on the disk that a container's start begins; it is there when this returns."""
        split_kernel_id(kernel)
        fresh = self._marks / f".{kernel}"
        _write(fresh, container_id.encode(), _PRIVATE_MODE)
        fresh.rename(self._marks / kernel)
        folder = os.open(self._marks, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def clear(self, kernel: KernelId) -> None:
        """Remove material and marker; gone already is fine."""
        for own in (_PUBLIC, _NOTED):
            (self._material / f"{kernel}.{own}").unlink(missing_ok=True)
        if self.folder(kernel).exists():
            shutil.rmtree(self.folder(kernel))
        (self._marks / kernel).unlink(missing_ok=True)

    def kernels(self) -> frozenset[KernelId]:
        """List whose material or marker is there."""
        material = {entry.name for entry in self._material.iterdir() if entry.is_dir()}
        marks = {entry.name for entry in self._marks.iterdir()}
        return frozenset(KernelId(name) for name in material | marks if not name.startswith("."))


def _write(path: Path, content: bytes, mode: int, account: Account | None = None) -> None:
    """Write a new file that never had other rights than the wanted ones, or fewer."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        left = memoryview(content)
        while left:  # memory that fills up takes a part first, and says so only the next time
            left = left[file.write(left) :]
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
        os.fchmod(descriptor, mode)


def file_system(path: Path) -> str:
    """Name the file system that a path lies on, by the mount table."""
    best, kind = "", "?"
    real = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            left, _, right = line.partition(" - ")
            place = left.split()[4].encode().decode("unicode_escape")
            inside = real == place or real.startswith(place.rstrip("/") + "/")
            if inside and len(place) >= len(best):
                best, kind = place, right.split()[0]
    return kind
