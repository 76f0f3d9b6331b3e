"""Who this agent is to its manager: a CURVE key of its own, and where the manager is."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import zmq
from zmq.utils import z85

KEY_FILE: Final = "agent.key"
MANAGER_FILE: Final = "manager.json"


class IdentityError(Exception):
    """The files of an identity cannot be used; the text is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair, Z85."""

    public: str
    secret: str

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the secret key."""
        return z85.decode(self.secret)

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


class Manager(msgspec.Struct, frozen=True):
    """The manager that this agent belongs to.

    Attributes:
        addresses: `tcp://host:port`, tried in turn.
        server_key: its public CURVE key, Z85.
        cluster_id: empty until the manager has taken the agent in.
        epoch: the newest lead that has welcomed this agent; see `control.Welcome`.
    """

    addresses: tuple[str, ...]
    server_key: str
    cluster_id: str = ""
    epoch: int = 0


def own_keys(state_dir: Path) -> KeyPair:
    """Read this agent's key pair; make it the first time.

    Raises:
        IdentityError: the file is damaged or cannot be written.
    """
    path = state_dir / KEY_FILE
    try:
        if not path.exists():
            public, secret = zmq.curve_keypair()
            _write(path, secret)
            return KeyPair(public.decode(), secret.decode())
        return key_pair(path.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise IdentityError(
            f"The agent's key {path} cannot be used: {error}. Remove the file and join anew."
        ) from error


def key_pair(secret: str) -> KeyPair:
    """Complete a secret key.

    Raises:
        ValueError: it is none.
    """
    try:
        return KeyPair(zmq.curve_public(secret.encode()).decode(), secret)
    except zmq.ZMQError as error:
        raise ValueError("it is no CURVE key") from error


def load_manager(state_dir: Path) -> Manager | None:
    """Read which manager this agent belongs to; None before it has joined.

    Raises:
        IdentityError: the file is damaged.
    """
    path = state_dir / MANAGER_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manager)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise IdentityError(f"{path} cannot be used: {error}. Remove it and join anew.") from error


def save_manager(state_dir: Path, manager: Manager) -> None:
    """Remember the manager.

    Raises:
        IdentityError: it cannot be written.
    """
    try:
        _write(state_dir / MANAGER_FILE, msgspec.json.encode(manager))
    except OSError as error:
        raise IdentityError(f"The manager cannot be remembered in {state_dir}: {error}.") from error


def note_epoch(state_dir: Path, epoch: int) -> None:
    """Remember which lead has welcomed this agent.

    Raises:
        IdentityError: the file is damaged, or cannot be written.
    """
    known = load_manager(state_dir)
    if known is not None:
        save_manager(state_dir, msgspec.structs.replace(known, epoch=epoch))


def _write(path: Path, data: bytes) -> None:
    """Whole and on the disk, or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
