"""Lines of output on their way: together where there are many, and few of them in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from phalanx_agent.loops.output import send_lines
from phalanx_wire.api import LogLine
from phalanx_wire.ids import kernel_id, session_id
from phalanx_wire.mux import MIN_WINDOW_BYTES, Stream, StreamClosed
from phalanx_wire.stream import LogsCall

TURNS = 1000
LONG = "x" * (1 << 20)


async def test_a_reader_that_takes_nothing_costs_a_bounded_amount_of_memory() -> None:
    read: list[LogLine] = []

    async def endless() -> AsyncIterator[LogLine]:
        while True:
            read.append(LogLine(len(read), stderr=False, text=LONG))
            yield read[-1]

    async def send(_message: object) -> None:
        """Whatever is sent is not asked for again."""

    call = LogsCall(kernel_id(session_id(bytes(12)), 1, 0), follow=True)
    stream = Stream(1, call, send, (MIN_WINDOW_BYTES, MIN_WINDOW_BYTES))
    sending = asyncio.ensure_future(send_lines(endless(), stream))
    for _turn in range(TURNS):
        await asyncio.sleep(0)
    ahead = len(read)
    await stream.close()

    with pytest.raises(StreamClosed):
        await sending
    assert ahead <= 3
