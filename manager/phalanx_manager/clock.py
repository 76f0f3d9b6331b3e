"""The time, where it enters."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

FOLLOWED_SHARE: Final = 0.05
"""An hour is made up for within twenty."""

FOLLOWED_AT_ONCE_S: Final = 86_400.0
"""A machine without a battery starts somewhere in the past; that is no time to keep."""


def _boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock(Protocol):
    """Two times: of the day, for people and the database; and one that never jumps."""

    def now(self) -> datetime:
        """Tell the time in UTC."""

    def monotonic_s(self) -> float:
        """Tell seconds since some moment; only differences mean something."""


class SystemClock:
    """The machine's. Its time of the day may be set, by an hour at once; ours then goes a little
    faster or slower until it is the same again, so that no deadline, time limit or silence is
    longer or shorter for it by more than that little.
    """

    def __init__(
        self, wall_s: Callable[[], float] = time.time, even_s: Callable[[], float] = _boot_s
    ) -> None:
        """Args: wall_s: Unix seconds; even_s: seconds that nobody sets."""
        self._wall_s = wall_s
        self._even_s = even_s
        self._looked_s = even_s()
        self._now_s = wall_s()

    def now(self) -> datetime:
        """Tell the time in UTC."""
        looked_s = self._even_s()
        passed_s, self._looked_s = looked_s - self._looked_s, looked_s
        self._now_s += passed_s
        off_s = self._wall_s() - self._now_s
        if abs(off_s) < FOLLOWED_AT_ONCE_S:
            most_s = passed_s * FOLLOWED_SHARE
            off_s = max(-most_s, min(off_s, most_s))
        self._now_s += off_s
        return datetime.fromtimestamp(self._now_s, tz=UTC)

    def monotonic_s(self) -> float:
        """Tell seconds since the machine started, suspends included."""
        return self._even_s()
