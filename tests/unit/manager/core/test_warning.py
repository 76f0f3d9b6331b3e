"""Signals by name, and the wish for one before the time is over."""

from __future__ import annotations

import pytest

from phalanx_manager.core import warning
from phalanx_manager.core.warning import Wish


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("USR1@90", Wish(10, 90.0)),
        ("SIGUSR1@90", Wish(10, 90.0)),
        ("usr2@5", Wish(12, 5.0)),
        ("15@1", Wish(15, 1.0)),
        ("RTMIN@60", Wish(34, 60.0)),
        ("B:USR1@90", Wish(10, 90.0, batch=True)),
    ],
)
def test_a_signal_and_its_time_are_read(text: str, wish: Wish) -> None:
    assert wish == warning.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "USR1",
        "@90",
        "USR1@",
        "NOPE@90",
        "0@9",
        "99@9",
        "USR1@-5",
        "USR1@9.5",
        "1@1@1",
        "R:USR1@90",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert warning.parse(text) is None


def test_a_signal_is_spelled_as_people_know_it() -> None:
    assert ("USR1", "RTMIN", "63") == tuple(map(warning.signal_name, (10, 34, 63)))
