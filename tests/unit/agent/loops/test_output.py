"""Lines of output on their way: together where there are many, and few of them in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest

from phalanx_agent.docker.rounds import Rounds
from phalanx_agent.loops.output import send_lines
from phalanx_wire import loglines
from phalanx_wire.api import LogLine
from phalanx_wire.control import Message
from phalanx_wire.ids import kernel_id, session_id
from phalanx_wire.mux import MIN_WINDOW_BYTES, Stream, StreamClosed
from phalanx_wire.stream import Data, LogsCall

TURNS = 1000
LONG = "x" * (1 << 20)
CALL = LogsCall(kernel_id(session_id(bytes(12)), 1, 0), follow=True)
READERS = 1000
PIECES = 20


async def taken(_message: object) -> None:
    """Whatever is sent is not asked for again."""


async def settle() -> None:
    for _turn in range(TURNS):
        await asyncio.sleep(0)


def opened(number: int = 1) -> Stream:
    return Stream(number, CALL, taken, (MIN_WINDOW_BYTES, MIN_WINDOW_BYTES))


async def test_a_reader_that_takes_nothing_costs_a_bounded_amount_of_memory() -> None:
    read: list[LogLine] = []

    async def endless() -> AsyncIterator[Iterator[LogLine]]:
        while True:
            read.append(LogLine(len(read), stderr=False, text=LONG))
            yield iter(read[-1:])

    stream = opened()
    sending = asyncio.ensure_future(send_lines(endless(), stream, partial(Rounds().of, "a")))
    await settle()
    ahead = len(read)
    await stream.close()

    with pytest.raises(StreamClosed):
        await sending
    assert ahead <= 1


@pytest.mark.parametrize("cut_off", [False, True])
async def test_who_leaves_lets_go_of_what_was_open_for_it(*, cut_off: bool) -> None:
    held = 0

    async def endless() -> AsyncIterator[Iterator[LogLine]]:
        nonlocal held
        held += 1
        try:
            while True:
                yield iter([LogLine(1, stderr=False, text=LONG)])
        finally:
            held -= 1

    stream = opened()
    sending = asyncio.ensure_future(send_lines(endless(), stream, partial(Rounds().of, "a")))
    await settle()
    assert 1 == held
    if cut_off:
        sending.cancel()
    else:
        await stream.close()
    await asyncio.wait([sending])

    assert 0 == held


async def test_lines_that_come_together_are_sent_together() -> None:
    lines = [LogLine(number, stderr=False, text="x") for number in range(100)]
    sent: list[list[LogLine]] = []

    async def send(message: Message) -> None:
        assert isinstance(message, Data)
        sent.append(loglines.unpack(message.data))

    async def two() -> AsyncIterator[Iterator[LogLine]]:
        yield iter(lines[:99])
        yield iter(())
        yield iter(lines[99:])

    stream = Stream(1, CALL, send, (MIN_WINDOW_BYTES, MIN_WINDOW_BYTES))
    await send_lines(two(), stream, partial(Rounds().of, "a"))

    assert [lines[:99], lines[99:]] == sent


async def test_a_thousand_readers_of_a_session_hold_up_one_of_another_for_a_piece_each() -> None:
    rounds = Rounds()
    told: list[str] = []

    async def pieces(name: str) -> AsyncIterator[Iterator[LogLine]]:
        for number in range(PIECES):
            yield said(name, number)

    def said(name: str, number: int) -> Iterator[LogLine]:
        told.append(name)
        yield LogLine(number, stderr=False, text=name)

    async with asyncio.TaskGroup() as tasks:
        for number in range(READERS):
            turn = partial(rounds.of, "greedy")
            tasks.create_task(send_lines(pieces("greedy"), opened(number), turn))
        await asyncio.sleep(0)
        turn = partial(rounds.of, "modest")
        tasks.create_task(send_lines(pieces("modest"), opened(READERS), turn))

    modest = [at for at, name in enumerate(told) if name == "modest"]
    assert READERS * PIECES == told.count("greedy")
    assert PIECES == len(modest)
    assert modest[-1] <= 6 * PIECES


async def test_others_are_heard_between_two_pieces() -> None:
    rounds = Rounds()
    told = heard = 0

    async def endless() -> AsyncIterator[Iterator[LogLine]]:
        while True:
            yield said()

    def said() -> Iterator[LogLine]:
        nonlocal told
        told += 1
        yield LogLine(told, stderr=False, text="")

    sending = [
        asyncio.ensure_future(send_lines(endless(), opened(number), partial(rounds.of, "greedy")))
        for number in range(READERS)
    ]
    for _turn in range(TURNS):
        before = told
        await asyncio.sleep(0)
        heard += told <= before + 1
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)

    assert told > TURNS // 4
    assert TURNS == heard


async def test_who_takes_nothing_or_leaves_keeps_nobody_waiting() -> None:
    rounds = Rounds()

    async def pieces(count: int) -> AsyncIterator[Iterator[LogLine]]:
        for number in range(count):
            yield iter([LogLine(number, stderr=False, text=LONG)])

    stuck = [
        asyncio.ensure_future(send_lines(pieces(9), opened(number), partial(rounds.of, "a")))
        for number in range(8)
    ]
    await settle()
    for task in stuck[:4]:
        task.cancel()

    async def few() -> AsyncIterator[Iterator[LogLine]]:
        yield iter([LogLine(1, stderr=False, text="hello")])

    async with asyncio.timeout(5):
        await send_lines(few(), opened(9), partial(rounds.of, "a"))
    assert not any(task.done() for task in stuck[4:])
    for task in stuck[4:]:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
