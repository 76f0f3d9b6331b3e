"""Keeps a loop going: a bug ends one turn of it, never the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Never

import structlog

_LOG = structlog.get_logger()
_BACKOFF_S: Final = (1.0, 30.0)


async def for_ever(name: str, begin: Callable[[], Awaitable[None]]) -> Never:
    """Run a loop again whenever it ends or fails; each begins from the truth."""
    shortest, wait_s = _BACKOFF_S[0], _BACKOFF_S[0]
    while True:
        began = asyncio.get_running_loop().time()
        try:
            await begin()
        except Exception:  # noqa: BLE001 - this is the loops' one supervisor
            _LOG.exception("loop.failed", loop=name)
        if asyncio.get_running_loop().time() - began > _BACKOFF_S[1]:
            wait_s = shortest
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, _BACKOFF_S[1])
