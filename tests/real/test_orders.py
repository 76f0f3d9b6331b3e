"""Sessions that wait for others, are held and let go, and get more time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.real.ground import Ground

pytestmark = pytest.mark.real

NEVER = "it was to run after the success of session"


def of(clean: Ground, *names: str) -> list[dict[str, Any]]:
    """What sessions look like when all of them are over."""
    for name in names:
        clean.phalanx("wait", name)
    return [clean.show(name) for name in names]


def test_followers_run_after_the_ends_that_they_wait_for_and_only_then(clean: Ground) -> None:
    bad = clean.detached("--", "sh", "-c", "sleep 1; exit 3")
    good = clean.detached("--", "sleep", "1")
    wishes = {
        "after a failure": f"afternotok:{bad}",
        "after a success": f"afterok:{good}",
        "after both": f"afterany:{bad},afterany:{good}",
        "after no success": f"afterok:{bad}",
        "after no failure": f"afternotok:{good}",
    }
    names = {what: clean.detached("--after", wish, "--", "true") for what, wish in wishes.items()}
    first, second, *_ = views = of(clean, bad, good, *names.values())
    by_wish = dict(zip(wishes, views[2:], strict=True))

    assert ("failed", "succeeded") == (first["state"], second["state"])
    assert {
        "after a failure": "succeeded",
        "after a success": "succeeded",
        "after both": "succeeded",
        "after no success": "cancelled",
        "after no failure": "cancelled",
    } == {wish: view["state"] for wish, view in by_wish.items()}
    assert by_wish["after a failure"]["started_at"] > first["ended_at"]
    assert by_wish["after a success"]["started_at"] > second["ended_at"]
    assert by_wish["after both"]["started_at"] > max(first["ended_at"], second["ended_at"])
    assert f"{NEVER} {bad}" in by_wish["after no success"]["reason"]


def test_what_is_held_stays_in_the_queue_until_it_is_released(clean: Ground) -> None:
    first = clean.detached("--", "sleep", "1000")
    held = clean.detached("--after", f"afterany:{first}", "--", "true")
    other = clean.detached("--after", f"afterany:{first}", "--", "true")
    clean.phalanx("hold", held).ok()
    clean.phalanx("stop", "--grace", "0s", first).ok()
    (free,) = of(clean, other)
    waiting = clean.show(held)
    clean.phalanx("release", held).ok()
    (released,) = of(clean, held)

    assert ("succeeded", "pending") == (free["state"], waiting["state"])
    assert "held" in waiting["reason"]
    assert "succeeded" == released["state"]


def test_a_time_limit_that_is_extended_in_time_lets_the_command_end(clean: Ground) -> None:
    name = clean.detached("-t", "10s", "--", "sleep", "11")
    short = clean.detached("-t", "2s", "--grace", "0s", "--", "sleep", "1000")
    clean.await_state(name, "running")
    clean.phalanx("extend", name, "+30s").ok()
    extended, timely = of(clean, name, short)

    assert ("succeeded", "timeout") == (extended["state"], timely["state"])
