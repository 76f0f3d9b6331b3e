"""The form of a sealed archive: who can open it is written at its front, for everybody to read.

8 bytes   MAGIC
1 byte    FORM
4 bytes   how many recipients, big-endian
32 bytes  the sender's key for this one archive, X25519
80 bytes  for each recipient: its X25519 key, and the archive's key sealed for it
the rest  the archive in pieces, see `phalanx_wire.seal`
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

MAGIC: Final = b"\x93PHXSEAL"
FORM: Final = 1
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
MAX_RECIPIENTS: Final = 4_096
_HEAD: Final = struct.Struct(">8sBI32s")
_WRAPPED_BYTES: Final = KEY_BYTES + TAG_BYTES
_ENTRY_BYTES: Final = KEY_BYTES + _WRAPPED_BYTES
_Z85: Final = (
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
)
_B85: Final = (
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
)
_TO_B85: Final = bytes.maketrans(_Z85, _B85)
_FROM_B85: Final = bytes.maketrans(_B85, _Z85)


class BrokenSealError(ValueError):
    """A sealed archive cannot be opened; the text says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Header:
    """The front of a sealed archive.

    Attributes:
        sender: its key for this one archive.
        wrapped: the archive's key, sealed for each recipient, by the recipient's key.
    """

    sender: bytes
    wrapped: Mapping[bytes, bytes]

    @property
    def recipients(self) -> frozenset[str]:
        """The keys that open it, Z85."""
        return frozenset(key_text(key) for key in self.wrapped)

    def spell(self) -> bytes:
        """The bytes of it."""
        head = _HEAD.pack(MAGIC, FORM, len(self.wrapped), self.sender)
        return head + b"".join(key + wrapped for key, wrapped in self.wrapped.items())


def is_sealed(start: bytes) -> bool:
    """Tell by an archive's first bytes; no tar archive with names in UTF-8 begins so."""
    return start.startswith(MAGIC)


def read_header(file: BinaryIO) -> Header:
    """Read the front of a sealed archive; leaves the file where the pieces begin.

    Raises:
        BrokenSealError: it is none, or of a form that is not known here.
    """
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise BrokenSealError("it is cut off")
    magic, form, count, sender = _HEAD.unpack(head)
    if magic != MAGIC:
        raise BrokenSealError("it is no sealed archive")
    if form != FORM:
        raise BrokenSealError(f"it is sealed in form {form}, and form {FORM} is read here")
    if not 0 < count <= MAX_RECIPIENTS:
        raise BrokenSealError(f"it names {count} recipients; 1 to {MAX_RECIPIENTS} can be")
    entries = file.read(count * _ENTRY_BYTES)
    if len(entries) < count * _ENTRY_BYTES:
        raise BrokenSealError("it is cut off")
    wrapped = {
        entries[at : at + KEY_BYTES]: entries[at + KEY_BYTES : at + _ENTRY_BYTES]
        for at in range(0, len(entries), _ENTRY_BYTES)
    }
    if len(wrapped) < count:
        raise BrokenSealError("it names a recipient twice")
    return Header(sender, wrapped)


def key_text(key: bytes) -> str:
    """Spell a key as CURVE's are spelt: 40 characters of Z85."""
    return base64.b85encode(key).translate(_FROM_B85).decode()


def key_bytes(text: str) -> bytes:
    """Read a key.

    Raises:
        ValueError: it is none.
    """
    try:
        key = base64.b85decode(text.encode().translate(_TO_B85))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or key_text(key) != text:
        raise ValueError(f"{text[:80]!r} is no key")
    return key
