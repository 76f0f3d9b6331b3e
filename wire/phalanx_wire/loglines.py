"""Lines of output as chunks of a log stream: each chunk is one msgpack list of `LogLine`s."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from phalanx_wire.api import LogLine
from phalanx_wire.stream import CHUNK_BYTES

MAX_TEXT_BYTES: Final = 32 << 10
"""A longer line comes as several with the same time."""

_OVERHEAD: Final = 24
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(list[LogLine])


def pack(lines: Iterable[LogLine]) -> Iterator[bytes]:
    """Spell lines as chunks that each fit into one `Data`; empty input makes no chunk."""
    batch: list[LogLine] = []
    size = _OVERHEAD
    for line in lines:
        for piece in _pieces(line):
            text = piece.text
            cost = (len(text) if text.isascii() else len(text.encode())) + _OVERHEAD
            if batch and size + cost > CHUNK_BYTES:
                yield _ENCODER.encode(batch)
                batch, size = [], _OVERHEAD
            batch.append(piece)
            size += cost
    if batch:
        yield _ENCODER.encode(batch)


def unpack(chunk: bytes) -> list[LogLine]:
    """Read one chunk.

    Raises:
        msgspec.MsgspecError: it is no list of log lines.
    """
    return _DECODER.decode(chunk)


def _pieces(line: LogLine) -> Iterator[LogLine]:
    if len(line.text) * 4 <= MAX_TEXT_BYTES or len(line.text.encode()) <= MAX_TEXT_BYTES:
        yield line
        return
    step = MAX_TEXT_BYTES // 4  # a character takes up to four bytes
    for start in range(0, len(line.text), step):
        yield LogLine(line.at_ns, line.stderr, line.text[start : start + step])
