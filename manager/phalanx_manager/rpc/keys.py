"""CURVE keys: the manager's own in a file, and one-time pairs for join tokens."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from phalanx_manager.rpc.failure import Unavailable

_KEY_CHARS = 40


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """A CURVE key pair, Z85; the secret half is never printed."""

    public: str
    secret: str = field(repr=False)


def make_pair() -> ServerKeys:
    """Make a fresh pair."""
    public, secret = zmq.curve_keypair()
    return ServerKeys(public.decode(), secret.decode())


def load_or_make(path: Path) -> ServerKeys:
    """Read the manager's pair, or make it at the first start.

    Raises:
        Unavailable: the file cannot be read or written, is open to others, or holds no key.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        keys = make_pair()
        try:
            _write(path, keys.secret)
        except OSError as error:
            raise Unavailable(str(path), f"write the manager's key: {error.strerror}") from error
        return keys
    except OSError as error:
        raise Unavailable(str(path), f"read the manager's key: {error.strerror}") from error


def _load(path: Path) -> ServerKeys:
    with open(path, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        text = file.read(_KEY_CHARS + 2).strip()
    if mode & 0o077:
        raise Unavailable(
            str(path), f"read the manager's key: its mode is {mode:04o}", f"chmod 600 {path}"
        )
    try:
        public = zmq.curve_public(text) if len(text) == _KEY_CHARS else b""
        secret = text.decode("ascii")
    except (ValueError, zmq.ZMQError):
        public = b""
        secret = ""
    if not public:
        raise Unavailable(
            str(path),
            "read the manager's key: it is not a CURVE secret key",
            "restore it; with a new key every agent must join again",
        )
    return ServerKeys(public.decode(), secret)


def _write(path: Path, secret: str) -> None:
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, secret.encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(draft, path)
