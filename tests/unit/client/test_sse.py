from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from phalanx_client.sse import Parser, ServerEvent

TEXT = b": hello\n\nid: 7\nevent: log\ndata: {\ndata: }\n\nevent:end\r\ndata:x\r\n\r\nid: 9\n\n"
EVENTS = [ServerEvent("7", "log", "{\n}"), ServerEvent("7", "end", "x")]


@given(st.lists(st.integers(0, len(TEXT)), max_size=20))
def test_pieces_may_end_anywhere(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(TEXT)]
    parser = Parser()

    found = [event for start, end in pairwise(places) for event in parser.feed(TEXT[start:end])]

    assert EVENTS == found


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data: bytes) -> None:
    Parser().feed(data + b"\n\n")
