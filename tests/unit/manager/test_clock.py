"""The manager's time when somebody sets the machine's."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from phalanx_manager.clock import SystemClock

BEGAN_S = 1_767_323_045.0


class Machine:
    """Both clocks of a machine."""

    def __init__(self) -> None:
        self.wall_s, self.even_s = BEGAN_S, 100.0
        self.clock = SystemClock(lambda: self.wall_s, lambda: self.even_s)

    def passed_s(self) -> float:
        """How much time has passed by the manager's clock since it was made."""
        return (self.clock.now() - datetime.fromtimestamp(BEGAN_S, tz=UTC)).total_seconds()

    def wait(self, seconds: float) -> None:
        self.wall_s += seconds
        self.even_s += seconds


def test_time_goes_on_as_it_does() -> None:
    machine = Machine()
    machine.wait(1234.5)

    assert 1234.5 == pytest.approx(machine.passed_s())
    assert 1334.5 == machine.clock.monotonic_s()


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_an_hour_is_made_up_for_little_by_little(jump_s: float) -> None:
    machine = Machine()
    machine.wall_s += jump_s
    at_once = machine.passed_s()
    seen = []
    for _ in range(100):
        machine.wait(60.0)
        seen.append(machine.passed_s())
    for _ in range(20):
        machine.wait(3600.0)
        seen.append(machine.passed_s())

    assert 0.0 == at_once
    assert all(57.0 <= after - before <= 63.0 for before, after in pairwise(seen[:100]))
    assert 6000.0 + 20 * 3600.0 + jump_s == pytest.approx(seen[-1])


def test_a_clock_that_was_never_set_before_is_followed_at_once() -> None:
    machine = Machine()
    machine.wall_s += 20 * 365 * 86_400.0

    assert 20 * 365 * 86_400.0 == machine.passed_s()
