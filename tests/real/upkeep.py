"""A lab's daemons at the end of a run: they hold no more than at its start, and all hosts work."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.real.ground import ACROSS, Ground, assert_same_traces, await_true, settled_traces

_NUMBER = re.compile(r"^(Threads|VmRSS):\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Footprint:
    """What a process holds: open files, threads, and memory in MiB."""

    descriptors: int
    threads: int
    memory_mib: int


POOL = min(32, (os.cpu_count() or 1) + 4)
"""Threads of a loop's pool, which begin as they are needed and stay."""

MAY_GROW = Footprint(descriptors=32, threads=POOL + 4, memory_mib=64)
"""Caches that fill once; what leaks with every session passes this within a suite."""


class Upkeep:
    """A lab's memory of what was there at first, and what its daemons held when first seen."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._at_first = settled_traces(ground)
        self._first: dict[str, Footprint] = {}

    def look(self) -> None:
        """See daemons that have begun since; a process counts from here."""
        for daemon, now in self._footprints().items():
            self._first.setdefault(daemon, now)

    def close(self) -> None:
        """A session over all hosts, each of which reaches each, and a second look at everything:
        what comes back long after a test was looked after is new to the next test, and seen here.
        """
        hosts = str(len(self._ground.lab.hosts))
        self._ground.run("-N", hosts, *ACROSS, "--", "true").ok()
        assert_same_traces(self._at_first, self._ground)
        try:
            await_true("no daemon has grown", lambda: not self._grown())
        except AssertionError as leaking:
            leaking.add_note(json.dumps(self._grown(), indent=2))
            raise

    def _grown(self) -> dict[str, dict[str, int]]:
        """Daemons that hold much more than when they were first seen, and how much more."""
        may, found = asdict(MAY_GROW), {}
        for daemon, now in self._footprints().items():
            first = asdict(self._first.setdefault(daemon, now))
            more = {what: much - first[what] for what, much in asdict(now).items()}
            if any(much > may[what] for what, much in more.items()):
                found[daemon] = more
        return found

    def _footprints(self) -> dict[str, Footprint]:
        """What the lab's daemons hold, by component and process."""
        lab = self._ground.lab
        found = {}
        for name in ("manager", *(f"agent-{host.index}" for host in lab.hosts)):
            pid = lab.pid(name)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[f"{name} {pid}"] = footprint(pid)
        return found


def footprint(pid: int) -> Footprint:
    """What a process holds now."""
    files = len(os.listdir(f"/proc/{pid}/fd"))
    told = dict(_NUMBER.findall(Path(f"/proc/{pid}/status").read_text()))
    return Footprint(files, int(told["Threads"]), int(told["VmRSS"]) >> 10)
