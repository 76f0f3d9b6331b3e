"""The three streams that every program is begun with, or should be."""

from __future__ import annotations

import os
import sys
from typing import Final

_LAST: Final = 2


def fill_standard_streams() -> None:
    """Lead closed ones nowhere: the number of one would be a file's, a database's or a socket's
    soon, and what a library says at its end would be written there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for good
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - for good
