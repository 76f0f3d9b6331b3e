"""Running coroutines that have no reason to wait to their end, without an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that only awaits a `PlainTransport`: it has no reason ever to suspend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine of the blocking client waits for an event loop")


def iterate(source: AsyncIterator[T]) -> Iterator[T]:
    """An asynchronous iterator of such coroutines as a plain one."""
    while True:
        try:
            item = finish(_next(source))
        except StopAsyncIteration:
            return
        yield item


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source)
