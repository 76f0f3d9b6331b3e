"""For how long this agent may go on: the manager's answers to its beats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from phalanx_wire.control import Beat

_KEPT: Final = 64


class Lease:
    """Counts from when the newest answered beat was *sent*, which the manager can only have heard
    later.

    Attributes:
        answered_s: when that was, seconds of CLOCK_BOOTTIME; None before any.
        goals_current: the goals are of the present connection: what the manager gave up while this
            agent was away is not among those to start, or to be let go on for longer.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args: clock: seconds of CLOCK_BOOTTIME."""
        self._clock = clock
        self._sent: dict[int, float] = {}
        self._number = 0
        self.answered_s: float | None = None
        self.goals_current = False

    def beat(self) -> Beat:
        """Make the next beat; it has to be sent at once."""
        self._number += 1
        self._sent[self._number] = self._clock()
        self._sent.pop(self._number - _KEPT, None)
        return Beat(self._number)

    def heard(self, number: int) -> bool:
        """Take an answer; False when it tells nothing new."""
        at = self._sent.pop(number, None)
        if at is None or (self.answered_s is not None and at <= self.answered_s):
            return False
        self.answered_s = at
        return True
