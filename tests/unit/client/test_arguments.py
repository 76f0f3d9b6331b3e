from __future__ import annotations

from datetime import UTC, datetime

import pytest

from phalanx_client import arguments
from phalanx_client.failure import Failure
from phalanx_client.target import Place, Target, kernel_of, parse, parse_place
from tests.unit.client.fake_manager import session


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5m", 90),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1:30", 5400),
        ("1:30:05", 5405),
        ("2-01:00:00", 176400),
        ("0", 0),
    ],
)
def test_a_length_of_time_is_read(text: str, expected: float) -> None:
    assert expected == arguments.seconds(text)


@pytest.mark.parametrize("text", ["", "x", "5x", "-5", "1h30", "1:90", "1e3", "forever", "5 m"])
def test_what_is_no_length_of_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="no length of time"):
        arguments.seconds(text)


def test_since_is_how_long_ago_or_a_moment() -> None:
    now = datetime(2030, 1, 1, 12, tzinfo=UTC)

    assert "2030-01-01T11:50:00Z" == arguments.since("10m", now)
    assert "2029-12-31T23:00:00Z" == arguments.since("2030-01-01T00:00:00+01:00", now)
    with pytest.raises(ValueError, match="is no time"):
        arguments.since("yesterday", now)


@pytest.mark.parametrize("text", ["", "a", "1-", "1,,2", "-1", "1;2"])
def test_what_is_no_list_of_ranks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no list of ranks"):
        arguments.ranks(text)


def test_a_container_is_named_by_rank_or_by_host() -> None:
    assert Target("demo", "") == parse("demo")
    assert Target("demo", "2") == parse("demo/2")
    assert 1 == kernel_of(session(), "1").rank
    assert 1 == kernel_of(session(), "sub1").rank
    assert 0 == kernel_of(session(), "").rank


@pytest.mark.parametrize("text", ["", "/", "demo/", "/1", "a/b/c"])
def test_what_names_no_container_is_refused(text: str) -> None:
    with pytest.raises(Failure, match="names no container"):
        parse(text)


def test_a_missing_container_is_answered_with_those_that_exist() -> None:
    with pytest.raises(Failure, match=r"has no container 'sub9'; it has main1, sub1") as caught:
        kernel_of(session(), "sub9")

    assert 66 == caught.value.exit_code


def test_a_path_is_local_unless_a_session_stands_before_it() -> None:
    assert Place(Target("demo", "1"), "/tmp/x") == parse_place("demo/1:/tmp/x")
    assert Place(Target("demo", ""), "/x") == parse_place("demo:/x")
    assert Place(None, "a/b") == parse_place("a/b")
    assert Place(None, "./demo:/x") == parse_place("./demo:/x")
    assert Place(None, "/abs:/x") == parse_place("/abs:/x")
    with pytest.raises(Failure, match="begins with /"):
        parse_place("demo:x")
