"""Live through seeds: `python -m tests.sim --seed 7 -v`, or `--start 0 --seeds 10000 --jobs 2`.

Exit code 1 when a promise was broken; each broken seed prints its violations, the end of its trace
and the command that shows all of it again. Also when many seeds were lived through and no crash has
met one of the points: what was never tried there is not known.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

from tests.sim.climate import AGENT_POINTS, MANAGER_POINTS
from tests.sim.story import Outcome, simulate, summarize

MANY_SEEDS: Final = 10_000
"""So many meet every point at which a process may die."""

POINTS: Final = (
    *(f"manager {point}" for point in MANAGER_POINTS),
    *(f"agent {point}" for point in AGENT_POINTS),
)

_TAIL_LINES: Final = 25
_PROGRESS_EVERY_S: Final = 10.0


def replay(seed: int) -> str:
    """Spell the command that lives through one seed again."""
    return f"python -m tests.sim --seed {seed} -v"


def told(outcome: Outcome) -> str:
    """Tell of a broken seed."""
    tail = "\n".join(f"    {line[:200]}" for line in outcome.trace[-_TAIL_LINES:])
    broken = "\n".join(f"  {text}" for text in outcome.violations)
    return f"seed {outcome.seed}:\n{broken}\n{tail}\n  again: {replay(outcome.seed)}"


class Tally:
    """What all seeds together have shown."""

    def __init__(self, seeds: int) -> None:
        self.broken: list[int] = []
        self.done = 0
        self._seeds = seeds
        self._began_s = self._told_s = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._crashes: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Count one seed, tell of it if it is broken, and of the progress now and then."""
        self.done += 1
        self._counts.update(outcome.counts)
        self._crashes.update(outcome.crashes)
        if outcome.violations:
            self.broken.append(outcome.seed)
            print(told(outcome), flush=True)
        now_s = time.monotonic()
        if now_s - self._told_s > _PROGRESS_EVERY_S:
            self._told_s = now_s
            print(f"{self.done} of {self._seeds} seeds, {len(self.broken)} broken", flush=True)

    def summary(self) -> str:
        """Tell of all."""
        took_s = time.monotonic() - self._began_s
        unmet = self._unmet()
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self._counts.items()))
        lines = [
            f"{self.done} seeds in {took_s:.1f} s: {counts}",
            f"crashes at {len(POINTS) - len(unmet)} of {len(POINTS)} points"
            + (f"; none at {', '.join(unmet)}" if unmet else ""),
            f"{len(self.broken)} broken" + (f": {self.broken}" if self.broken else ""),
        ]
        if self._untried():
            lines.append(f"{MANY_SEEDS} seeds or more have to meet a crash at every point")
        return "\n".join(lines)

    def code(self) -> int:
        """Tell the exit code."""
        return 1 if self.broken or self._untried() else 0

    def _unmet(self) -> list[str]:
        return [point for point in POINTS if not self._crashes[point]]

    def _untried(self) -> bool:
        """Whether there were enough seeds, and a point is unmet all the same."""
        return self.done >= MANY_SEEDS and bool(self._unmet())


def _outcomes(seeds: range, jobs: int) -> Iterable[Outcome]:
    if jobs == 1:
        yield from map(simulate, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(summarize, seeds, chunksize=4)


def _one(seed: int, *, verbose: bool) -> int:
    outcome = simulate(seed)
    if verbose:
        print("\n".join(outcome.trace))
    for text in outcome.violations:
        print(text)
    print(f"seed {seed}: {len(outcome.violations)} broken promises, trace {outcome.digest}")
    print(", ".join(f"{count} {what}" for what, count in sorted(outcome.counts.items())))
    return 1 if outcome.violations else 0


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the whole trace")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    if given.seed is not None:
        return _one(given.seed, verbose=given.verbose)
    tally = Tally(given.seeds)
    for outcome in _outcomes(range(given.start, given.start + given.seeds), given.jobs):
        tally.add(outcome)
    print(tally.summary())
    return tally.code()


if __name__ == "__main__":
    sys.exit(main())
