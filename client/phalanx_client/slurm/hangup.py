"""What was allocated for a program is given back however that is asked to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupting() -> Iterator[None]:
    """Make SIGTERM, and the SIGHUP of a closed terminal, an interrupt; main thread only.

    Shells send SIGHUP again to what they have started, so that it is ignored from then on; a second
    SIGTERM ends us at once.
    """

    def ended(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    # What is ignored, as under nohup, ends nothing.
    ending = (signal.SIGTERM, signal.SIGHUP)
    taken = [one for one in ending if signal.getsignal(one) is signal.SIG_DFL]
    for one in taken:
        signal.signal(one, ended)
    try:
        yield
    finally:
        for one in taken:
            signal.signal(one, signal.SIG_DFL)
