"""The whole cluster under seeded bad luck keeps its promises, and a seed is a seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = 300


def sim(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )


@pytest.mark.timeout(600)
def test_three_hundred_seeds_break_no_promise() -> None:
    done = sim("--start", "0", "--seeds", str(SEEDS), "--jobs", "2")
    print(done.stdout)

    assert ("", 0) == (done.stderr, done.returncode), done.stdout


@pytest.mark.parametrize("seed", [1, 2, 39])
def test_the_same_seed_is_the_same_story_to_the_byte(seed: int) -> None:
    first, again = (sim("--seed", str(seed), "-v", hash_seed=salt) for salt in ("1", "2"))

    assert first.stdout == again.stdout
