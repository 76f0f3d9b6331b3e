"""Ed25519 keys of a kernel: made here, and their private halves never leave this host's memory."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_TYPE = b"ssh-ed25519"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One key.

    Attributes:
        public: OpenSSH's one-line form without a comment.
    """

    private: Ed25519PrivateKey
    public: str

    def openssh(self) -> bytes:
        """The private half as OpenSSH's client reads it."""
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )

    def dropbear(self) -> bytes:
        """The private half as dropbear's server reads it: its type, then seed and public half as
        one string, each with its length before it.
        """
        seed = self.private.private_bytes(
            serialization.Encoding.Raw,
            serialization.PrivateFormat.Raw,
            serialization.NoEncryption(),
        )
        half = self.private.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        return _string(_TYPE) + _string(seed + half)


def fresh() -> KeyPair:
    """Make a key from the machine's randomness."""
    private = Ed25519PrivateKey.generate()
    line = private.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return KeyPair(private, line.decode("ascii"))


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
