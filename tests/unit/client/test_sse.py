from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx_client import sse
from phalanx_client.sse import Parser, ServerEvent

TEXT = b": hello\n\nid: 7\nevent: log\ndata: {\ndata: }\n\nevent:end\r\ndata:x\r\n\r\nid: 9\n\n"
EVENTS = [ServerEvent("7", "log", "{\n}"), ServerEvent("7", "end", "x")]


@given(st.lists(st.integers(0, len(TEXT)), max_size=20))
def test_pieces_may_end_anywhere(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(TEXT)]
    parser = Parser()

    found = [event for start, end in pairwise(places) for event in parser.feed(TEXT[start:end])]

    assert EVENTS == found


def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MOST_BYTES", 10)
    parser = Parser()
    parser.feed(b"data: " + b"x" * 10)

    with pytest.raises(ValueError, match="has a line of more than"):
        parser.feed(b"x")


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data: bytes) -> None:
    Parser().feed(data + b"\n\n")
