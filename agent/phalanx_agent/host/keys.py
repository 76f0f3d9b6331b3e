"""Ed25519 keys of a kernel: made here, and their private halves never leave this host's memory.

Both programs' formats are written here: the library's own writer takes a megabyte of memory.
"""

from __future__ import annotations

import binascii
import secrets
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_TYPE = b"ssh-ed25519"
_LINE = 64  # characters; ssh-keygen has 70, and reads any
_BLOCK = 8  # bytes; what is not encrypted is filled up to a whole number of these


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One key; both halves have 32 bytes."""

    private: Ed25519PrivateKey
    half: bytes

    @property
    def public(self) -> str:
        """OpenSSH's one-line form without a comment."""
        return f"{_TYPE.decode()} {_base64(self._blob)}"

    @property
    def _blob(self) -> bytes:
        return _string(_TYPE) + _string(self.half)

    def openssh(self) -> bytes:
        """The private half as OpenSSH's client reads it (PROTOCOL.key of its sources): no cipher,
        no passphrase, one key; then twice the same random number, the key, and no comment.
        """
        number = secrets.token_bytes(4)
        key = _string(_TYPE) + _string(self.half) + _string(self._seed() + self.half)
        secret = number + number + key + _string(b"")
        secret += bytes(range(1, 1 + -len(secret) % _BLOCK))
        head = b"openssh-key-v1\0" + _string(b"none") + _string(b"none") + _string(b"")
        text = _base64(head + struct.pack(">I", 1) + _string(self._blob) + _string(secret))
        lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
        marks = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
        return "\n".join([marks[0], *lines, marks[1], ""]).encode()

    def dropbear(self) -> bytes:
        """The private half as dropbear's server reads it: its type, then seed and public half as
        one string, each with its length before it.
        """
        return _string(_TYPE) + _string(self._seed() + self.half)

    def _seed(self) -> bytes:
        return self.private.private_bytes_raw()


def fresh() -> KeyPair:
    """Make a key from the machine's randomness."""
    private = Ed25519PrivateKey.generate()
    return KeyPair(private, private.public_key().public_bytes_raw())


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()
