"""Keeps a loop going: a bug or a full disk ends one turn of it, never the manager."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Never

import structlog

from phalanx_manager.rpc import failure
from phalanx_manager.store import port

_SHORTEST_S: Final = 0.1
_LONGEST_S: Final = 10.0

log = structlog.get_logger(__name__)


async def for_ever(name: str, turn: Callable[[], Awaitable[None]], turns: dict[str, int]) -> Never:
    """Take turn after turn; each begins from the truth. A turn waits for its own bell.

    A failed turn is taken again after a while; `turns` counts the good ones.
    """
    wait_s = _SHORTEST_S
    while True:
        try:
            await turn()
        except (port.Unavailable, failure.Unavailable) as error:
            log.warning("loop.unavailable", loop=name, why=str(error), again_in_s=wait_s)
        except Exception:
            log.exception("loop.failed", loop=name, again_in_s=wait_s)
        else:
            wait_s = _SHORTEST_S
            turns[name] = turns.get(name, 0) + 1
            continue
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, _LONGEST_S)
