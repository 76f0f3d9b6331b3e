"""Is what a container has mounted what was judged? Between the judgement and the mount, which the
engine makes by name, whoever may write in an allowed folder could have put a link in its place.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from phalanx_agent.core.recipe import Bind
from phalanx_agent.host import mounts


@dataclass(frozen=True, slots=True)
class _Place:
    """A path inside of a file system, whatever it is mounted on."""

    device: str
    path: str


def as_judged(pid: int, binds: Iterable[Bind]) -> bool:
    """Tell whether a container has every bind from its judged source. It is asked before anything
    of the user's runs there; a container that has ended has nothing.

    Args:
        pid: of a process of the container, as this host numbers it.
        binds: with real paths, as the judgement gave them.
    """
    try:
        theirs = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        return True
    ours = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    return compare(ours, theirs, [bind.source for bind in binds])


def compare(ours: str, theirs: str, sources: Iterable[str]) -> bool:
    """Compare two tables of mounts: each source is in the second as often as it is named."""
    mounted = Counter(_Place(mount.device, mount.root) for mount in mounts.read(theirs))
    wanted = Counter(_place_of(source, ours) for source in sources)
    return all(mounted[place] >= count for place, count in wanted.items())


def _place_of(path: str, table: str) -> _Place:
    """Find a path in the mount that covers it: the last one of the longest name."""
    best_point, best = "", _Place("", path)
    for mount in mounts.read(table):
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and len(mount.point) >= len(best_point):
            best_point, best = mount.point, _Place(mount.device, mount.root)
    rest = os.path.relpath(path, best_point or "/")
    return _Place(best.device, os.path.normpath(os.path.join(best.path, rest)))
