"""One piece of work with companions that live as long as it does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Never, TypeVar

from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.stream import Closed

_T = TypeVar("_T")


async def alongside(work: Coroutine[Any, Any, _T], *companions: Coroutine[Any, Any, Any]) -> _T:
    """Do the work while the companions run; its end is theirs.

    Raises:
        Whatever the first of all that fails raises, as it is.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(companion) for companion in companions]
            result = await work
            for task in beside:
                task.cancel()
            return result
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def left(stream: Stream) -> Never:
    """Be a companion that ends the work when the caller at the other end of a stream leaves.

    Raises:
        StreamClosed: the caller has left.
    """
    async for _ in stream:
        continue
    raise StreamClosed(stream.closed or Closed(stream.number))
