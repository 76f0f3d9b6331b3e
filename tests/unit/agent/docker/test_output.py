"""Many readers of one engine's output: who is let in when, and what is read for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal

import pytest
from aiohttp import web

from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.output import _OPENINGS, _PLACES
from phalanx_agent.docker.port import Unavailable
from phalanx_wire.api import LogLine
from tests.support.scripted_engine import Answer, Script

ONE = "1" * 64
LOGS = f"GET containers/{ONE}/logs"
MANY = 5 * _OPENINGS
ONES = _OPENINGS // 2
"""Of them one session has half."""
ENTRY = b"1970-01-01T00:00:01Z " + b"x" * 100 + b"\n"
FRAME = b"\x01\0\0\0" + len(ENTRY).to_bytes(4, "big") + ENTRY
TURNS = 2000

Reader = AsyncIterator[Iterator[LogLine]]


class Flood:
    """Answers with output without end once it is let; how many answers have begun, and how much
    was taken of them.
    """

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.begun = 0
        self.taken = 0
        self.more = asyncio.Event()

    def __call__(self, size: int) -> Answer:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)  # an engine tells at once that it is going to answer
            self.begun += 1
            self.more.set()
            await self.let.wait()
            for _ in range(size):
                await response.write(FRAME * 10)
                self.taken += 10 * len(FRAME)
            return response

        return answer

    async def has_begun(self, count: int) -> None:
        async with asyncio.timeout(5):
            while self.begun < count:
                self.more.clear()
                await self.more.wait()


@pytest.fixture
def flood() -> Flood:
    return Flood()


async def settle() -> None:
    for _turn in range(TURNS):
        await asyncio.sleep(0)


async def count(reader: Reader) -> int:
    return sum([len(list(piece)) async for piece in reader])


async def some(reader: Reader) -> list[str]:
    """The lines that come next, none at the end: whoever sends them skips a piece that has none."""
    async for piece in reader:
        if lines := [line.text for line in piece]:
            return lines
    return []


async def test_an_engine_looks_for_the_beginning_of_a_few_readers_at_once(
    script: Script, docker: DockerEngine, flood: Flood
) -> None:
    script.on(LOGS, flood(3))
    reading = [asyncio.ensure_future(count(docker.logs(ONE, session="a"))) for _ in range(MANY)]
    await flood.has_begun(ONES)
    await settle()
    begun = flood.begun
    flood.let.set()

    assert [30] * MANY == await asyncio.gather(*reading)
    assert ONES == begun


async def test_who_leaves_while_its_beginning_is_looked_for_lets_the_next_in(
    script: Script, docker: DockerEngine, flood: Flood
) -> None:
    script.on(LOGS, flood(3))
    reading = [asyncio.ensure_future(count(docker.logs(ONE, session="a"))) for _ in range(MANY)]
    await flood.has_begun(ONES)
    for task in reading[:-1]:
        task.cancel()
    await flood.has_begun(ONES + 1)
    flood.let.set()

    assert 30 == await reading[-1]


async def test_followers_that_wait_for_a_word_keep_nobody_out(
    script: Script, docker: DockerEngine, flood: Flood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_agent.docker.output._FOLLOWER_BEGINS_S", 0.01)
    script.on(LOGS, flood(1))
    followers = [
        asyncio.ensure_future(count(docker.logs(ONE, since_ns=since, tail=tail, follow=True)))
        for since, tail in [(0, -1), (0, 0), (9, 5), (9, -1)] * MANY
    ]
    await flood.has_begun(4 * MANY)
    for task in followers:
        task.cancel()
    await asyncio.gather(*followers, return_exceptions=True)

    assert 4 * MANY == flood.begun


async def test_readers_of_which_nothing_is_taken_are_all_begun_and_read_no_further(
    script: Script, docker: DockerEngine, flood: Flood, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a merge needs it: the first lines of each before it takes more of any."""
    monkeypatch.setattr("phalanx_agent.docker.places.REST_S", 0.02)
    flood.let.set()
    script.on(LOGS, flood(1_000_000))
    readers = [docker.logs(ONE, session="a") for _ in range(MANY)]
    async with asyncio.timeout(10):
        firsts = [len(list(await anext(reader))) for reader in readers]
        await settle()
        taken = flood.taken
        await settle()
        seconds = [await some(reader) for reader in reversed(readers)]
    for reader in readers:
        await reader.aclose()  # type: ignore[attr-defined] # the port promises an iterator only

    assert all(firsts)
    assert all(seconds)
    assert taken <= MANY << 20


def logbook(count: int) -> tuple[list[str], Answer]:
    """A log, of which an engine gives what is later than a moment."""
    entries = [
        ((1 + number // 3) * 1_000_003, f"{number} " + "x" * (number % 7) * 1500)
        for number in range(1, count + 1)
    ]

    async def answer(request: web.Request) -> web.StreamResponse:
        since_ns = int(Decimal(request.query.get("since", "0")) * 1_000_000_000)
        tail = request.query["tail"]
        told = entries if tail == "all" else entries[-int(tail) :]
        response = web.StreamResponse()
        await response.prepare(request)
        for at_ns, text in told:
            if at_ns >= since_ns:
                entry = f"1970-01-01T00:00:00.{at_ns:09}Z {text}\n".encode()
                await response.write(b"\x01\0\0\0" + len(entry).to_bytes(4, "big") + entry)
        return response

    return [text for _, text in entries], answer


@pytest.mark.parametrize("tail", [-1, 40])
async def test_readers_of_more_ranks_than_there_are_places_are_merged_whole(
    script: Script, docker: DockerEngine, monkeypatch: pytest.MonkeyPatch, tail: int
) -> None:
    """All are begun before more of any is taken; then each is taken of where the merge wants it."""
    monkeypatch.setattr("phalanx_agent.docker.places.REST_S", 0.0)
    texts, answer = logbook(60)
    script.on(LOGS, answer)
    wanted = texts if tail < 0 else texts[-tail:]
    readers = [docker.logs(ONE, session="a", tail=tail) for _ in range(_PLACES + 4)]
    async with asyncio.timeout(30):
        told = [await some(reader) for reader in readers]
        for _ in wanted:
            for at, reader in enumerate(readers):
                told[at] += await some(reader)

    assert [wanted] * len(readers) == told
    assert script.count(LOGS) > len(readers)


async def test_readers_that_are_left_alone_leave_room_for_others(
    script: Script, docker: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_agent.docker.places.REST_S", 0.05)
    texts, answer = logbook(60)
    script.on(LOGS, answer)
    alone = [docker.logs(ONE, session="a") for _ in range(_PLACES)]
    async with asyncio.timeout(10):
        for reader in alone:
            list(await anext(reader))
        reader = docker.logs(ONE, session="b")

        assert texts == [line.text async for piece in reader for line in piece]


async def test_an_output_that_breaks_off_is_not_taken_for_a_whole_one(
    script: Script, docker: DockerEngine
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(FRAME)
        assert request.transport is not None
        request.transport.close()
        return response

    script.on(LOGS, answer)
    reader = docker.logs(ONE)

    assert 1 == len(list(await anext(reader)))
    with pytest.raises(Unavailable, match="The connection broke"):
        await anext(reader)
