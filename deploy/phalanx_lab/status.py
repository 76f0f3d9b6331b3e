"""What a lab's supervisor tells the world: one small file, replaced at each change."""

from __future__ import annotations

import fcntl
import os
from typing import Literal

import msgspec

from phalanx_lab import plan as plans

Phase = Literal["starting", "up", "stopping", "failed"]


class Component(msgspec.Struct, kw_only=True):
    """One supervised process."""

    pid: int = 0  # 0 while it is not running
    restarts: int = 0
    wish: Literal["run", "stop"] = "run"
    last_exit: int | None = None


class Status(msgspec.Struct, kw_only=True):
    """A lab as its supervisor sees it."""

    supervisor: int
    phase: Phase = "starting"
    doing: str = ""
    error: str = ""
    http_port: int = 0
    components: dict[str, Component] = msgspec.field(default_factory=dict)


def path(run_folder: str) -> str:
    """Where the status lies."""
    return f"{run_folder}/status.json"


def write(run_folder: str, status: Status) -> None:
    """Replace the status."""
    plans.write(path(run_folder), msgspec.json.encode(status))


def read(run_folder: str) -> Status | None:
    """The last status written; None when there is none."""
    try:
        with open(path(run_folder), "rb") as file:
            return msgspec.json.decode(file.read(), type=Status)
    except FileNotFoundError:
        return None


class Lock:
    """An exclusive claim on a lab that ends with its holder, however that dies."""

    def __init__(self, run_root: str, name: str, kind: str) -> None:
        os.makedirs(run_root, exist_ok=True)
        self._path = f"{run_root}/.{name}.{kind}"
        self._file = -1

    def take(self, *, wait: bool = False) -> bool:
        """Whether the claim is ours now; the holder's pid is in the file."""
        while True:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                self.drop()
                return False
            if self._is_the_one_named():
                break
            self.drop()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)
        return True

    def _is_the_one_named(self) -> bool:
        """Whether the file we locked is still at its path: a holder may remove it at its end."""
        try:
            return os.stat(self._path).st_ino == os.fstat(self._file).st_ino
        except FileNotFoundError:
            return False

    def drop(self, *, remove: bool = False) -> None:
        """Let go; `remove` leaves no file behind either."""
        if self._file >= 0:
            if remove:
                os.unlink(self._path)
            os.close(self._file)
        self._file = -1

    def holder(self) -> int:
        """The pid of whoever holds the claim; 0 when it is free."""
        if not os.path.exists(self._path):
            return 0
        if self.take():
            self.drop(remove=True)
            return 0
        with open(self._path, encoding="ascii") as file:
            return int(file.read() or 0)
