"""The lease of one container: a file beside runner.conf that says when all has to be over.

It holds a moment of CLOCK_BOOTTIME, which every process of a machine shares, nobody can set, and
which goes on while the machine is suspended. An agent that is stopped, killed or cut off cannot
move it on; the runner reads it again at that moment, and unless it has been moved ends at once, and
with it, as PID 1, everything in the container. Without a file there is no end.
"""

from __future__ import annotations

import time

FILE = "lease"


def spell(until_s: float) -> str:
    """The file's text, for seconds of CLOCK_BOOTTIME."""
    return f"{int(until_s * 1000)}\n"


def parse(text: str) -> float:
    """Seconds of CLOCK_BOOTTIME. Raises ValueError where the text is none of ours."""
    return int(text) / 1000


def now_s() -> float:
    """CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
