"""A command's output collected, also by a thread for callers without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from phalanx_client.aio import AioTransport
from phalanx_client.config import Manager
from phalanx_client.either import leading
from phalanx_client.websocket import STDERR, Wish, execute

T = TypeVar("T")
PIECE = 64 << 10


async def output_of(
    manager: Manager, ref: str, rank_and_command: tuple[int, tuple[str, ...]], stdin: bytes
) -> tuple[int, bytes, bytes]:
    """Run a command in a container to its end: exit code, standard output, standard error."""
    wish = Wish(*rank_and_command, stdin=bool(stdin))
    out, err = bytearray(), bytearray()
    async with (
        AioTransport(await leading(manager)) as transport,
        execute(transport, ref, wish) as process,
        asyncio.TaskGroup() as tasks,
    ):
        feeder = tasks.create_task(process.feed(_pieces(stdin))) if stdin else None
        async for channel, data in process.output():
            (err if channel == STDERR else out).extend(data)
        if feeder is not None:
            feeder.cancel()
    assert process.exit_code is not None  # noqa: S101 - the output ends with it
    return process.exit_code, bytes(out), bytes(err)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), PIECE):
        yield data[at : at + PIECE]


def apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop in a thread of its own; an interrupt here cancels it there."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    thread = threading.Thread(target=loop.run_until_complete, args=(asyncio.wait([task]),))
    thread.start()
    try:
        thread.join()
    except BaseException:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    finally:
        loop.close()
    return task.result()
