"""Tells systemd that we are ready, alive, or stopping; without systemd it does nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Final, Never

import structlog

_SHORTEST_S: Final = 1.0

log = structlog.get_logger(__name__)


def notify(state: str) -> bool:
    """Send one line such as `READY=1`; False when nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        try:
            notifier.connect(address)
            notifier.send(state.encode())
        except OSError as error:
            log.warning("systemd.unreachable", error=error.strerror)
            return False
    return True


async def watchdog(turns: Mapping[str, int]) -> Never:
    """Feed the watchdog for as long as every loop keeps turning."""
    period_s = int(os.environ.get("WATCHDOG_USEC") or 0) / 1_000_000
    seen: dict[str, int] = {}
    while True:
        await asyncio.sleep(max(period_s / 3, _SHORTEST_S))
        stuck = [name for name, count in turns.items() if seen.get(name) == count]
        if period_s and not stuck:
            notify("WATCHDOG=1")
            seen = dict(turns)
        elif stuck and period_s:
            log.warning("watchdog.stuck", loops=stuck)
