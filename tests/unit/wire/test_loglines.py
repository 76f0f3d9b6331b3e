from __future__ import annotations

import msgspec
import pytest

from phalanx_wire.api import LogLine
from phalanx_wire.loglines import pack, unpack
from phalanx_wire.stream import CHUNK_BYTES


@pytest.mark.parametrize("text", ["", "a", "\N{SNOWMAN}" * 900, "x" * 3000])
def test_lines_read_back_in_order_and_every_chunk_fits(text: str) -> None:
    lines = [LogLine(number, number % 2 == 0, text) for number in range(200)]
    chunks = list(pack(lines))
    assert lines == [line for chunk in chunks for line in unpack(chunk)]
    assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)


def test_a_line_that_is_too_long_comes_as_several() -> None:
    text = "\N{GRINNING FACE}" * 100_000
    chunks = list(pack([LogLine(1, False, text)]))
    pieces = [line for chunk in chunks for line in unpack(chunk)]
    assert text == "".join(piece.text for piece in pieces)
    assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)


def test_no_lines_make_no_chunk() -> None:
    assert [] == list(pack([]))


@pytest.mark.parametrize("chunk", [b"", b"\xff", b"\x91\x01", b"\x91" * 5000])
def test_nonsense_is_one_kind_of_error(chunk: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, RecursionError)):
        unpack(chunk)
