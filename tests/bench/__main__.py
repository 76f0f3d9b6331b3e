"""Measure on real engines: `python -m tests.bench [--only starts|footprint] [--pairs N]`.

Writes tests/bench/results.json, and docs/BENCHMARKS.md from it; what is not measured this time
keeps its figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from phalanx_lab import loading
from phalanx_lab.lab import Lab
from tests.bench import footprint, installation, page, starts

RESULTS = installation.ROOT / "tests/bench/results.json"


def measure_starts(options: argparse.Namespace) -> dict[str, Any]:
    """Three hosts, some or all of the rows."""
    chosen = [int(index) for index in options.rows.split(",") if index]
    rows = tuple(starts.ROWS[index] for index in chosen) or starts.ROWS
    with Lab.up("bench", 3, report=print) as lab:
        loading.load([host.engine_socket for host in lab.hosts], "base", print)
        results = asyncio.run(starts.run(lab, options.pairs, rows))
    found = {title: [asdict(pair) for pair in figures] for title, figures in results.items()}
    return {"pairs": options.pairs, "rows": found}


def measure_footprint(options: argparse.Namespace) -> dict[str, Any]:
    """One host: first with manager and agent apart, then with both in one process."""
    findings = footprint.of_the_bundle()
    with Lab.up("benchf", 1, report=print) as lab:
        loading.load([host.engine_socket for host in lab.hosts], "base", print)
        findings += asyncio.run(footprint.of_containers(lab, options.pairs))
        findings += asyncio.run(footprint.of_daemons(lab))
    with Lab.up("benchu", 1, report=print, engines_only=True) as lab:
        loading.load([host.engine_socket for host in lab.hosts], "base", print)
        findings += footprint.of_one_process(lab)
    return {"pairs": options.pairs, "rows": [asdict(finding) for finding in findings]}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "starts": measure_starts,
    "footprint": measure_footprint,
}


def main() -> None:
    """Measure, keep, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="by default all parts")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--rows", default="", help="of starts, as indices, e.g. 0,2; not kept")
    options = parser.parse_args()
    installation.enter(sys.argv[1:])
    kept = json.loads(RESULTS.read_text())
    for name in [options.only] if options.only else PARTS:
        found = PARTS[name](options)
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        kernel = platform.release().partition("-")[0]
        kept[name] = {"machine": f"{machine}, Linux {kernel}", "load": os.getloadavg(), **found}
    text = page.page(kept)
    print(text)
    if not options.rows:
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
        (installation.ROOT / "docs/BENCHMARKS.md").write_text(text)


if __name__ == "__main__":
    main()
