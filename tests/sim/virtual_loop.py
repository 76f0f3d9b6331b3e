"""An event loop whose time is virtual: when nobody has anything to do, it is the next timer's."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, Final, Never, TypeVar

_T = TypeVar("_T")

TICK_S: Final = 1e-6
"""Timers of one moment run in no order that is promised; what is in order is so far apart."""


class Stuck(AssertionError):  # noqa: N818 - it is a finding, not an error to handle
    """Nothing is ready and no timer is set: the simulated cluster will never move again."""


class _NoIO(selectors.SelectSelector):
    """Waits for nothing but the clock, which it sets."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck("no task is ready and no timer is set")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`sleep`, `timeout` and `time()` work unchanged, and take no time."""

    def __init__(self) -> None:
        self._clock = _NoIO()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Never:  # type: ignore[override]  # noqa: ARG002 - none may
        """Refuse: a thread would make the simulation differ from run to run."""
        raise AssertionError(f"the simulation has no threads: {func}")


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run on a fresh loop, from time 0."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
