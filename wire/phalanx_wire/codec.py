"""From messages to bytes and back, strictly."""

from __future__ import annotations

import zlib
from typing import Final

import msgspec

from phalanx_wire.control import (
    Beat,
    Enrol,
    Enrolled,
    Goals,
    Heard,
    Hello,
    Message,
    Observed,
    Refused,
    Welcome,
)
from phalanx_wire.stream import Closed, Credit, Data, Eof, Open, Resize

MAX_MESSAGE_BYTES: Final = 4 << 20
"""On the wire, of what agents say."""

MAX_GOALS_BYTES: Final = 16 << 20
"""On the wire, of what they are told: all containers' commands and environments are in it."""

MAX_PLAIN_BYTES: Final = 128 << 20
"""After unpacking."""

_PACK_FROM: Final = 128 << 10
"""Larger messages are goals and reports of hundreds of kernels, which are much alike."""

_PACKED: Final = b"\x78"
"""How zlib begins; no message does, since each is a msgpack map."""

AnyMessage = (
    Enrol
    | Enrolled
    | Hello
    | Welcome
    | Refused
    | Goals
    | Observed
    | Beat
    | Heard
    | Open
    | Data
    | Eof
    | Resize
    | Credit
    | Closed
)

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """Spell a message as msgpack, a large one packed by zlib."""
    data = _ENCODER.encode(message)
    return data if len(data) < _PACK_FROM else zlib.compress(data, level=1)


def decode(data: bytes | memoryview, most: int = MAX_MESSAGE_BYTES) -> AnyMessage:
    """Read and validate a message of at most so many bytes.

    Raises:
        msgspec.MsgspecError: not msgpack, unknown tag or field, missing field, wrong type.
    """
    if len(data) > most:
        raise msgspec.DecodeError(f"message of {len(data)} bytes is over {most}")
    if bytes(data[:1]) == _PACKED:
        data = _unpacked(data)
    try:
        return _DECODER.decode(data)
    except RecursionError as error:
        raise msgspec.DecodeError("message is nested too deeply") from error


def _unpacked(data: bytes | memoryview) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        plain = unpacking.decompress(data, MAX_PLAIN_BYTES)
    except zlib.error as error:
        raise msgspec.DecodeError(f"packed message is broken: {error}") from error
    if not unpacking.eof:
        raise msgspec.DecodeError(f"packed message is cut off or over {MAX_PLAIN_BYTES} bytes")
    return plain
