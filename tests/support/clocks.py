"""Daemons whose time of the day is wrong, alone of all on their machine.

A test makes a file in the daemon's folder; the daemon's test-only entry (`failing_agent`,
`failing_manager`) reads it when it begins. So it begins anew by itself: the same process, with a
library before its own that tells another time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
WRONG_BY_S = "WRONG_BY_S"


def set_wrong(folder: Path, by_s: int) -> None:
    """Let the next process of the daemon that has this folder be ahead, or behind."""
    library = _library(folder)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
    _file(folder).write_text(str(by_s))


def set_right(folder: Path) -> None:
    """Let the next process of the daemon that has this folder tell the time."""
    _file(folder).unlink(missing_ok=True)
    _library(folder).unlink(missing_ok=True)


def obey(folder: Path) -> None:
    """Become a process whose clock is wrong if a test wants that."""
    if _file(folder).exists() and WRONG_BY_S not in os.environ:
        wrong = {WRONG_BY_S: _file(folder).read_text(), "LD_PRELOAD": str(_library(folder))}
        os.execve(sys.executable, sys.orig_argv, os.environ | wrong)  # noqa: S606


def _file(folder: Path) -> Path:
    return folder / "clock"


def _library(folder: Path) -> Path:
    return folder / "clock.so"
