"""From messages to bytes and back, strictly."""

from __future__ import annotations

import msgspec

from phalanx_wire.control import (
    Enrol,
    Enrolled,
    Goals,
    Hello,
    Message,
    Observed,
    Refused,
    Welcome,
)
from phalanx_wire.stream import Closed, Credit, Data, Eof, Open, Resize

MAX_MESSAGE_BYTES = 4 << 20

AnyMessage = (
    Enrol
    | Enrolled
    | Hello
    | Welcome
    | Refused
    | Goals
    | Observed
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
    """Spell a message as msgpack."""
    return _ENCODER.encode(message)


def decode(data: bytes | memoryview) -> AnyMessage:
    """Read and validate a message.

    Raises:
        msgspec.MsgspecError: not msgpack, unknown tag or field, missing field, wrong type.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise msgspec.DecodeError(f"message of {len(data)} bytes is over {MAX_MESSAGE_BYTES}")
    try:
        return _DECODER.decode(data)
    except RecursionError as error:
        raise msgspec.DecodeError("message is nested too deeply") from error
