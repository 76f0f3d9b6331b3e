"""What was allocated for a program is given back however that is asked to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from phalanx_client.undo import hearing


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

    with hearing(ended):
        yield
