from __future__ import annotations

import pytest

from phalanx_agent.docker.call import checked_id, version_of
from phalanx_agent.docker.moments import unix_seconds
from phalanx_agent.docker.output import MAX_LINE_BYTES, Joiner, nanoseconds
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


def test_the_pieces_of_a_long_line_are_one_line_with_the_first_ones_time() -> None:
    joiner = Joiner()

    assert [] == list(joiner.take(1, b"1970-01-01T00:00:01Z begin, "))
    (line,) = joiner.take(1, b"1970-01-01T00:00:02Z end\n")

    assert (1_000_000_000, False, "begin, end") == (line.at_ns, line.stderr, line.text)


def test_two_streams_do_not_mix_and_an_unended_line_is_not_lost() -> None:
    joiner = Joiner()
    assert [] == list(joiner.take(1, b"1970-01-01T00:00:01Z out"))
    (err,) = joiner.take(2, b"1970-01-01T00:00:01Z err\xff\n")

    assert (True, "err�") == (err.stderr, err.text)
    assert ["out"] == [line.text for line in joiner.rest()]


def test_a_line_without_end_cannot_fill_our_memory() -> None:
    joiner = Joiner()
    piece = b"1970-01-01T00:00:01Z " + b"x" * (16 << 10)

    given = sum(len(line.text) for _ in range(100) for line in joiner.take(1, piece))
    held = sum(len(line.text) for line in joiner.rest())

    assert 100 * (16 << 10) == given + held
    assert held <= MAX_LINE_BYTES
