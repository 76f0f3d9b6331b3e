"""A run of many seeds fails when no crash has met one of the points."""

from __future__ import annotations

import pytest

from tests.sim.__main__ import MANY_SEEDS, POINTS, Tally
from tests.sim.story import Outcome

NOTHING_MET = Outcome(1, (), (), "", (), {}, 0.0)


def lived_through(seeds: int, met: tuple[str, ...], violations: tuple[str, ...] = ()) -> Tally:
    tally = Tally(seeds)
    tally.add(Outcome(0, violations, (), "", met, {}, 0.0))
    for _seed in range(seeds - 1):
        tally.add(NOTHING_MET)
    return tally


@pytest.mark.parametrize(
    ("seeds", "met", "code"),
    [(MANY_SEEDS, POINTS, 0), (MANY_SEEDS, POINTS[1:], 1), (MANY_SEEDS - 1, (), 0)],
    ids=["all met", "one unmet", "too few seeds to tell"],
)
def test_many_seeds_have_to_meet_a_crash_at_every_point(
    seeds: int, met: tuple[str, ...], code: int
) -> None:
    assert code == lived_through(seeds, met).code()


def test_a_point_that_many_seeds_have_not_met_is_named() -> None:
    summary = lived_through(MANY_SEEDS, POINTS[1:]).summary()

    assert f"none at {POINTS[0]}\n" in summary
    assert summary.endswith("have to meet a crash at every point")


def test_one_broken_promise_fails_a_run_of_any_length() -> None:
    assert 1 == lived_through(1, POINTS, ("a promise was broken",)).code()
