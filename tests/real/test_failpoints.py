"""Every daemon dies and freezes before and after everything that it does to the world outside."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from tests.real.failing import Site
from tests.real.ground import assert_same_traces, settled_traces
from tests.real.walk import Walk
from tests.support import failing_agent, failing_manager
from tests.support.failpoints import MODES, MOMENTS, Point, points

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

PER_WALK = 7
"""Points of one daemon in one session: few enough that one seldom hides another."""

FOUNDERS = frozenset(
    f"docker.{call}" for call in ("swarm_init", "swarm_canary", "create_network", "remove_network")
)
"""Calls of the agent whose engine speaks for the swarm, which is the first one's."""

_numbers = itertools.count(1)

ELSEWHERE = {
    "store.lose": "a host has to be silent for longer than this walk takes (test_fencing)",
    "docker.clear": "these hosts' cluster would have to be removed (test_leaving)",
    "docker.swarm_leave": "these hosts' cluster would have to be removed (test_leaving)",
}


def walks() -> list[dict[str, list[Point]]]:
    """All points of all daemons, as few at a time as fit."""
    second = [call for call in failing_agent.CALLS if call not in FOUNDERS | set(ELSEWHERE)]
    first = sorted(FOUNDERS) + second[1::2]
    daemons = {
        "agent-1": rounds(first),
        "agent-2": rounds(second[::2]),
        "manager": rounds([call for call in failing_manager.CALLS if call not in ELSEWHERE]),
    }
    longest = max(map(len, daemons.values()))
    return [
        {name: found[turn] for name, found in daemons.items() if turn < len(found)}
        for turn in range(longest)
    ]


def rounds(calls: Sequence[str]) -> list[list[Point]]:
    """Take every call's points, in rounds in which each call has one."""
    return [
        [Point(call, when, mode) for call in calls[at : at + PER_WALK]]
        for mode, when in itertools.product(MODES, MOMENTS)
        for at in range(0, len(calls), PER_WALK)
    ]


def told(armed: dict[str, list[Point]]) -> str:
    """A walk's points, as the test's name."""
    return "; ".join(
        f"{component} {points[0].mode} {points[0].when} "
        + ", ".join(point.call.partition(".")[2] for point in points)
        for component, points in armed.items()
    )


@pytest.mark.long
@pytest.mark.parametrize("armed", [pytest.param(armed, id=told(armed)) for armed in walks()])
def test_whatever_a_daemon_is_killed_or_frozen_at_its_sessions_end_as_they_should(
    failing: Site, armed: dict[str, list[Point]]
) -> None:
    before = settled_traces(failing.ground)
    Walk(failing, next(_numbers), armed).run()

    assert_same_traces(before, failing.ground)


def test_every_call_that_changes_the_world_is_walked_past() -> None:
    walked = {point for armed in walks() for points in armed.values() for point in points}
    calls = {*failing_agent.CALLS, *failing_manager.CALLS} - set(ELSEWHERE)

    assert set(points(calls)) == walked
