"""The checkers see bugs: each planted one is caught within a few seeds, by the right words."""

from __future__ import annotations

import pytest

from tests.sim.plant import Plant
from tests.sim.plants import PLANTS
from tests.sim.plants_in_records import PLANTS_IN_RECORDS
from tests.sim.story import simulate

WITHIN_SEEDS = 120


@pytest.mark.timeout(600)
@pytest.mark.parametrize("plant", [*PLANTS, *PLANTS_IN_RECORDS], ids=lambda plant: plant.bug)
def test_a_planted_bug_is_caught(plant: Plant) -> None:
    with plant.planted():
        found = next(
            (
                seed
                for seed in range(WITHIN_SEEDS)
                if any(plant.caught in text for text in simulate(seed).violations)
            ),
            None,
        )
    print(f"caught by seed {found}")

    assert found is not None
