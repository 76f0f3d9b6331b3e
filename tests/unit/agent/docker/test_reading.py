from __future__ import annotations

from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx_agent.docker.call import checked_id, version_of
from phalanx_agent.docker.moments import unix_seconds
from phalanx_agent.docker.output import DISORDER_NS, MAX_LINE_BYTES, Frames, Joiner, nanoseconds
from phalanx_agent.docker.port import Unavailable


@pytest.mark.parametrize("text", ["", "../networks/x", "a" * 63, "A" * 64, "phx-1", "g" * 64])
def test_only_a_full_id_gets_into_a_url(text: str) -> None:
    with pytest.raises(Unavailable):
        checked_id(text)


def test_versions_are_compared_as_numbers() -> None:
    assert version_of("1.9") < version_of("1.41") < version_of("1.51")
    assert (0, 0) == version_of("dev")


def test_moments_keep_their_fraction() -> None:
    assert 0.0 == unix_seconds("0001-01-01T00:00:00Z")
    assert 1.5 == unix_seconds("1970-01-01T00:00:01.500000000Z")
    assert -3598.5 == unix_seconds("1970-01-01T00:00:01.5+01:00")
    assert 1_500_000_001 == nanoseconds(b"1970-01-01T00:00:01.500000001Z")
    assert 0 == nanoseconds(b"no time")


STAMP, LATER = b"1970-01-01T00:00:01Z", b"1970-01-01T00:00:02Z"


def test_the_pieces_of_a_long_line_are_one_line_with_the_first_ones_time() -> None:
    joiner = Joiner()

    assert [] == list(joiner.join(iter([(1, STAMP, b"begin, ")])))
    (line,) = joiner.join(iter([(1, LATER, b"end\n")]))

    assert (1_000_000_000, False, "begin, end") == (line.at_ns, line.stderr, line.text)


def test_two_streams_do_not_mix_and_an_unended_line_is_not_lost() -> None:
    joiner = Joiner()
    (err,) = joiner.join(iter([(1, STAMP, b"out"), (2, STAMP, b"err\xff\n")]))

    assert (True, "err�") == (err.stderr, err.text)
    assert ["out"] == [line.text for line in joiner.rest()]


def test_a_line_without_end_cannot_fill_our_memory() -> None:
    joiner = Joiner()
    piece = (1, STAMP, b"x" * (16 << 10))

    given = sum(len(line.text) for line in joiner.join(iter([piece] * 100)))
    held = sum(len(line.text) for line in joiner.rest())

    assert 100 * (16 << 10) == given + held
    assert held <= MAX_LINE_BYTES


@pytest.mark.parametrize("pieces", range(1, 8))
def test_the_parts_of_a_very_long_line_are_all_of_it_and_nothing_besides(pieces: int) -> None:
    joiner = Joiner()
    entries = [(1, STAMP, b"x\r" * (8 << 10))] * pieces
    ended = [*entries, (1, LATER, b"\r\n"), (1, LATER, b"next\n")]

    *parts, following = joiner.join(iter(ended))

    whole = b"x\r" * (8 << 10) * pieces
    assert whole.rstrip(b"\r").decode() == "".join(part.text for part in parts).rstrip("\r")
    assert all(part.text for part in parts)
    assert {1_000_000_000} == {part.at_ns for part in parts}
    assert (2_000_000_000, "next") == (following.at_ns, following.text)


Entry = tuple[int, bytes, bytes]


def framed(entry: Entry) -> bytes:
    channel, stamp, text = entry
    said = stamp + b" " + text
    return bytes((channel, 0, 0, 0)) + len(said).to_bytes(4, "big") + said


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    for size in cycle(sizes):
        if not stream:
            return pieces
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


def stamp(number: int) -> bytes:
    return b"1970-01-01T00:00:%02d.%09dZ" % divmod(number + 1_000_000_000, 1_000_000_000)


CHANNELS = st.sampled_from((1, 2))
TEXTS = st.binary(max_size=40)
SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=8)


@given(st.lists(st.tuples(CHANNELS, st.just(STAMP), TEXTS), max_size=12), SIZES)
def test_entries_are_the_same_wherever_their_stream_is_cut(
    entries: list[Entry], sizes: list[int]
) -> None:
    stream = b"".join(map(framed, entries))
    frames = Frames()

    assert entries == [entry for piece in cut(stream, sizes) for entry in frames.take(piece)]


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """A log: each channel's times never go back; those of the two are a little out of order."""
    entries: list[Entry] = []
    at = {1: 0, 2: 0}
    for channel in draw(st.lists(CHANNELS, max_size=20)):
        step = draw(st.sampled_from((0, 0, 1, DISORDER_NS // 2, 3 * DISORDER_NS)))
        at[channel] = max(at[channel] + step, max(at.values()) - DISORDER_NS // 2)
        entries.append((channel, stamp(at[channel]), draw(TEXTS)))
    return entries


@given(logs(), SIZES, st.lists(st.integers(0, 8), max_size=6))
def test_a_stream_that_begins_anew_goes_on_with_the_entry_after_the_last(
    entries: list[Entry], sizes: list[int], breaks: list[int]
) -> None:
    frames = Frames()
    since_ns = 0
    given: list[Entry] = []
    for count in [*breaks, None]:
        later = [entry for entry in entries if nanoseconds(entry[1]) >= since_ns]
        for piece in cut(b"".join(map(framed, later)), sizes)[:count]:
            given += frames.take(frames.fresh(piece))
        since_ns = max(since_ns, frames.again() - DISORDER_NS)

    assert entries == given


def test_what_follows_an_entry_that_is_gone_is_given() -> None:
    entries = [(1, stamp(number * DISORDER_NS), b"x\n") for number in range(8)]
    frames = Frames()
    given = list(frames.take(b"".join(map(framed, entries[:3]))))
    frames.again()
    given += frames.take(frames.fresh(b"".join(map(framed, entries[4:]))))

    assert [*entries[:3], *entries[4:]] == given


def test_a_stream_that_broke_off_at_a_piece_of_an_old_line_doubles_nothing() -> None:
    old, second = stamp(0), DISORDER_NS * 4
    entries = [
        (2, old, b"50%\r"),
        *((1, stamp(number * second), b"x\n") for number in range(1, 5)),
        (2, old, b"60%\r"),
        (1, stamp(5 * second), b"y\n"),
    ]
    frames = Frames()
    given = list(frames.take(b"".join(map(framed, entries[:6]))))
    since_ns = frames.again() - DISORDER_NS
    later = [entry for entry in entries if nanoseconds(entry[1]) >= since_ns]
    given += frames.take(frames.fresh(b"".join(map(framed, later))))

    assert entries == given
