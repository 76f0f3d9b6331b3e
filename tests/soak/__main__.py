"""Soak a lab: `python -m tests.soak --sessions 1000 --seed N`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.real.failing import failing_lab
from tests.soak.soak import Soak

AGAIN_AFTER_S = 60.0


def say(line: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def main() -> int:
    """Run; 1 when anything was lost, doubled or left behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000, metavar="N")
    parser.add_argument("--hosts", type=int, default=3, metavar="N")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, metavar="N")
    given = parser.parse_args()
    again = f"--sessions {given.sessions} --hosts {given.hosts} --seed {given.seed}"
    say(f"seed {given.seed}; the same once more: python -m tests.soak {again}")
    with (
        tempfile.TemporaryDirectory() as folder,
        failing_lab(f"soak{os.getpid()}", given.hosts, Path(folder) / "config.toml") as site,
    ):
        count = Soak(site, given.sessions, given.seed, say).run(look_again_after_s=AGAIN_AFTER_S)
    print(count)
    for line in (*count.lost, *count.doubled, count.leaks):
        print(line)
    print(f"again: python -m tests.soak {again}")
    return 0 if count.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
