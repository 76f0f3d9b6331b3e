"""The time, where it enters."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two times: of the day, for people and the database; and one that never jumps."""

    def now(self) -> datetime:
        """Tell the time in UTC."""

    def monotonic_s(self) -> float:
        """Tell seconds since some moment; only differences mean something."""


class SystemClock:
    """The machine's."""

    def now(self) -> datetime:
        """Tell the time in UTC."""
        return datetime.fromtimestamp(time.time(), tz=UTC)

    def monotonic_s(self) -> float:
        """Tell seconds since the machine started, suspends included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
