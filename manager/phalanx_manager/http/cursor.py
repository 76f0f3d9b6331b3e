"""Where a stream of merged log lines can be resumed: a position per rank, as one short text.

Pure. A position is the time of a line and how many lines of that time were sent; it is spelled as
variable-length integers, times as differences, so that a thousand ranks stay within a header.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

Position = tuple[int, int]
_MAX_RANKS: Final = 100_000
_MAX_CHARS: Final = 60_000


def spell(positions: Mapping[int, Position]) -> str:
    """Spell positions by rank as a text without blanks."""
    out = bytearray()
    before_rank, before_ns = 0, 0
    for rank, (at_ns, count) in sorted(positions.items()):
        _put(out, rank - before_rank)
        delta = at_ns - before_ns
        _put(out, delta * 2 if delta >= 0 else -delta * 2 - 1)
        _put(out, count)
        before_rank, before_ns = rank, at_ns
    return base64.urlsafe_b64encode(bytes(out)).rstrip(b"=").decode()


def parse(text: str) -> dict[int, Position]:
    """Read what `spell` has made.

    Raises:
        ValueError: it is nothing that `spell` makes.
    """
    if len(text) > _MAX_CHARS:
        raise ValueError("the resume point is too long")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("the resume point is not one of this stream") from error
    numbers = _numbers(data)
    if len(numbers) % 3 or len(numbers) > 3 * _MAX_RANKS:
        raise ValueError("the resume point is not one of this stream")
    positions: dict[int, Position] = {}
    rank, at_ns = 0, 0
    for step, delta, count in zip(*[iter(numbers)] * 3, strict=True):
        rank += step
        at_ns += delta // 2 if delta % 2 == 0 else -(delta + 1) // 2
        positions[rank] = (at_ns, count)
    if any(not 0 <= at_ns < 1 << 63 for at_ns, _count in positions.values()):
        raise ValueError("the resume point is not one of this stream")
    return positions


def _put(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(0x80 | number & 0x7F)
        number >>= 7
    out.append(number)


def _numbers(data: bytes) -> list[int]:
    numbers: list[int] = []
    number, shift = 0, 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            raise ValueError("the resume point is not one of this stream")
        if not byte & 0x80:
            numbers.append(number)
            number, shift = 0, 0
    if shift:
        raise ValueError("the resume point is not one of this stream")
    return numbers
