"""Telling a service manager that we are ready and alive (sd_notify); silent where there is none."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

_USEC: Final = 1_000_000


def notify(state: str) -> None:
    """Send e.g. `READY=1` or `WATCHDOG=1` to the socket that NOTIFY_SOCKET names."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as line:
        line.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        line.send(state.encode())


def watchdog_s() -> float | None:
    """Say how often to tell that we are alive, in seconds: half of what is waited for."""
    text, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not text.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(text) / _USEC / 2
