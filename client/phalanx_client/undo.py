"""What must be put right also when a signal ends this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` before SIGTERM or SIGHUP ends the process, as it then does; main thread only."""

    def ended(number: int, _frame: FrameType | None) -> None:
        undo()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    with hearing(ended):
        yield


@contextmanager
def hearing(ended: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `ended` when SIGTERM or SIGHUP would end the process; main thread only."""
    # What is ignored, as under nohup, or handled by somebody else, ends nothing.
    taken = [one for one in _ENDING if signal.getsignal(one) is signal.SIG_DFL]
    for one in taken:
        signal.signal(one, ended)
    try:
        yield
    finally:
        for one in taken:
            signal.signal(one, signal.SIG_DFL)
