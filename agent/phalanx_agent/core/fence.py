"""When a kernel has to end by itself, so that its place may be given away.

The manager gives up the kernels of an agent from which it has heard nothing for so long. It last
heard at the earliest what it has answered, and that was sent before: so whatever is over when that
long has passed since the *sending* is over before the manager's verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LAST_S: Final = 2.0
"""Between the KILL of everything and the end of the lease."""

ENGINE_KILL_S: Final = 1.0
"""After the runner's KILL the agent does the same through the engine, should it have failed."""

_SHARE_OF_GRACE: Final = 4
"""Of the whole time at most a fourth is for going."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Seconds of CLOCK_BOOTTIME.

    Attributes:
        stop_at: TERM, unless the manager has been heard by then.
        kill_at: KILL, by the runner in the container, whatever the agent does.
    """

    stop_at: float
    kill_at: float


def fence(answered_s: float, lost_after_s: float, grace_s: float) -> Fence:
    """Say when a kernel has to end whose agent has sent at `answered_s` what was answered last."""
    return fence_of(answered_s + lost_after_s - LAST_S, lost_after_s, grace_s)


def fence_of(kill_at: float, lost_after_s: float, grace_s: float) -> Fence:
    """Say when to begin with a kernel that is killed then."""
    return Fence(kill_at - min(grace_s, lost_after_s / _SHARE_OF_GRACE), kill_at)
