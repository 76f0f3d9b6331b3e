"""Archives that only some hosts can open: sealed by who sends them, opened where they are unpacked.

A fresh key of the archive's own is wrapped for each recipient by X25519 between a fresh key of the
sender and the recipient's, HKDF-SHA256 and ChaCha20-Poly1305. The archive is cut into pieces of
64 KiB, each sealed with a nonce of its number and whether it is the last (the STREAM construction);
their key is bound to the whole header. So nothing of it can be changed, moved, left out, cut off or
added without being noticed. The form of the header is `phalanx_wire.sealed`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Collection
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from phalanx_wire.sealed import KEY_BYTES, TAG_BYTES, BrokenSealError, Header, read_header

PIECE_BYTES: Final = 64 << 10
_SEALED_BYTES: Final = PIECE_BYTES + TAG_BYTES
_KEY_OF: Final = b"phalanx sealed archive 1, key"
_PIECES_OF: Final = b"phalanx sealed archive 1, pieces"
_ONLY: Final = bytes(12)
"""The nonce of a key that seals one thing."""


def seal(
    source: BinaryIO,
    into: BinaryIO,
    recipients: Collection[bytes],
    entropy: Callable[[int], bytes],
) -> None:
    """Seal what is left of a file.

    Args:
        recipients: X25519 keys, 1 to `sealed.MAX_RECIPIENTS`.
        entropy: so many random bytes, fresh each time.

    Raises:
        ValueError: a recipient's key is none.
    """
    own = X25519PrivateKey.from_private_bytes(entropy(KEY_BYTES))
    sender = own.public_key().public_bytes_raw()
    content = entropy(KEY_BYTES)
    wrapped = {
        key: _between(own, key, sender, key).encrypt(_ONLY, content, None)
        for key in dict.fromkeys(recipients)
    }
    header = Header(sender, wrapped).spell()
    into.write(header)
    cipher = _of_pieces(content, header)
    number, piece = 0, source.read(PIECE_BYTES)
    while True:
        following = source.read(PIECE_BYTES) if len(piece) == PIECE_BYTES else b""
        into.write(cipher.encrypt(_nonce(number, last=not following), piece, None))
        if not following:
            return
        number, piece = number + 1, following


def opened(file: BinaryIO, secret: bytes) -> io.BufferedReader:
    """Open a sealed archive with a recipient's secret key; it can be read from anywhere.

    What is read is as it was sealed, or `BrokenSealError` is raised. That nothing is missing is
    known once its end was read.

    Raises:
        BrokenSealError: it is not sealed for this key, or was changed.
    """
    header = read_header(file)
    own = X25519PrivateKey.from_private_bytes(secret)
    public = own.public_key().public_bytes_raw()
    if public not in header.wrapped:
        raise BrokenSealError("it is not sealed for this host's key")
    try:
        unwrapping = _between(own, header.sender, header.sender, public)
        content = unwrapping.decrypt(_ONLY, header.wrapped[public], None)
    except (InvalidTag, ValueError) as error:
        raise BrokenSealError("its header was changed") from error
    pieces = _Pieces(file, _of_pieces(content, header.spell()))
    return io.BufferedReader(pieces, PIECE_BYTES)


class _Pieces(io.RawIOBase):
    """The opened archive, piece by piece; closes the file with itself."""

    def __init__(self, file: BinaryIO, cipher: ChaCha20Poly1305) -> None:
        self._file = file
        self._cipher = cipher
        self._start = file.tell()
        sealed = file.seek(0, os.SEEK_END) - self._start
        self._count = max(1, -(-sealed // _SEALED_BYTES))
        self._size = sealed - self._count * TAG_BYTES
        if self._size < (self._count - 1) * PIECE_BYTES:
            raise BrokenSealError("it is cut off")
        self._at = 0
        self._number, self._piece = -1, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # as BufferedReader asks
        number, inside = divmod(self._at, PIECE_BYTES)
        if number >= self._count:
            return 0
        found = self._open(number)[inside : inside + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _open(self, number: int) -> bytes:
        if number != self._number:
            self._file.seek(self._start + number * _SEALED_BYTES)
            sealed = self._file.read(_SEALED_BYTES)
            nonce = _nonce(number, last=number == self._count - 1)
            try:
                self._piece = self._cipher.decrypt(nonce, sealed, None)
            except InvalidTag as error:
                raise BrokenSealError("it was changed or is cut off") from error
            self._number = number
        return self._piece

    def close(self) -> None:
        self._file.close()
        super().close()


def _between(own: X25519PrivateKey, other: bytes, sender: bytes, to: bytes) -> ChaCha20Poly1305:
    """The cipher that the sender and one recipient share, and nobody else."""
    shared = own.exchange(X25519PublicKey.from_public_bytes(other))
    return ChaCha20Poly1305(_derived(shared, sender + to, _KEY_OF))


def _of_pieces(content: bytes, header: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(_derived(content, hashlib.sha256(header).digest(), _PIECES_OF))


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt, info).derive(key)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
