"""Sessions that wait for others, are held and let go, get more time, and are warned."""

from __future__ import annotations

from typing import Any

import pytest

from tests.real.failing import ENDED, ON_BOTH, Site
from tests.real.ground import Ground, assert_same_traces, await_true, settled_traces
from tests.support.failpoints import Point

pytestmark = pytest.mark.real

HEARS = (
    "trap 'echo heard $RANK >> /share/warned.$PHALANX_SESSION_ID' USR1; "
    "until [ -e /share/enough.$PHALANX_SESSION_ID ]; do sleep 0.05; done"
)
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


@pytest.mark.timeout(300)
def test_a_warning_is_heard_once_though_manager_and_agents_die_as_it_is_sent(failing: Site) -> None:
    before = settled_traces(failing.ground)
    daemons = ("manager", "agent-1", "agent-2")
    armed = [Point("store.warn", "after", "kill"), *[Point("scratch.note", "after", "kill")] * 2]
    share = {"source": str(failing.share), "target": "/share", "read_only": False}
    session = failing.submit(
        **ON_BOTH, command=["sh", "-c", HEARS], mounts=[share],
        time_limit_s=300, warn_signal="USR1@294", lost_after_s=300,
    )  # fmt: skip
    failing.await_state(session, "running")  # before that agents note other things
    for daemon, point in zip(daemons, armed, strict=True):
        point.arm(failing.folder(daemon))
    heard = failing.share / f"warned.{session}"

    def told() -> list[str]:
        return sorted(heard.read_text().splitlines()) if heard.exists() else []

    await_true("both ranks have heard it", lambda: len(told()) >= 2, 60)
    for daemon in daemons:
        failing.begin_anew(daemon)
    await_true("the agents are back", lambda: failing.works(1) and failing.works(2), 60)
    (failing.share / f"enough.{session}").touch()
    view = failing.await_state(session, *ENDED)

    assert [] == failing.left(dict(zip(daemons, ([point] for point in armed), strict=True)))
    assert ["heard 0", "heard 1"] == told()
    assert "succeeded" == view["state"]
    assert_same_traces(before, failing.ground)
