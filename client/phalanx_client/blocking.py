"""The blocking twin of `Client`: the same coroutines, run to their end without an event loop."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar

from phalanx_client.session import Client

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


class BlockingClient:
    """Every method of `Client` under its own name, called without `await`.

    Coroutines give their result, asynchronous iterators become iterators.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        finish(self._client.close())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        if inspect.isasyncgenfunction(method):
            return functools.wraps(method)(lambda *a, **k: iterate(method(*a, **k)))
        if inspect.iscoroutinefunction(method):
            return functools.wraps(method)(lambda *a, **k: finish(method(*a, **k)))
        raise AttributeError(f"{name!r} is no request of the client")
