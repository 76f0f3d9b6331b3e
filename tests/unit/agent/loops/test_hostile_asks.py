"""Whoever asks in a container and means harm, or too much."""

from __future__ import annotations

import asyncio
import os
import struct

import pytest

from phalanx_runner import ask
from phalanx_wire.mux import StreamClosed
from phalanx_wire.stream import (
    STDOUT,
)
from tests.unit.agent.loops.asking import PATIENCE_S, Site, answered, said


def frame(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack("!cI", kind, len(content) if size is None else size) + content


SILLY = {
    "nothing": b"",
    "noise": os.urandom(100_000),
    "another language": b"GET / HTTP/1.1\r\n\r\n",
    "another kind": frame(b"i", b"x"),
    "a question without end": frame(b"a", b"1 1", 0xFFFFFFFF),
    "half of one": frame(b"a", b"1 1 0 24 80\0/\0", 500),
    "no numbers": frame(b"a", b"1 x\0/\0phalanx\0"),
    "another version": frame(b"a", b"2 1 0 24 80\0/\0phalanx\0"),
    "more words than there are": frame(b"a", b"1 9 0 24 80\0/\0phalanx\0"),
    "fewer than none": frame(b"a", b"1 -9 0 24 80\0/\0phalanx\0"),
    "bytes that are no text": frame(b"a", b"1 1 0 24 80\0/\0\xff\0"),
    "huge numbers": frame(b"a", b"1 " + b"9" * 5000 + b"\0/\0phalanx\0"),
}


@pytest.mark.parametrize("kind", SILLY)
async def test_nonsense_is_turned_away_and_hurts_nobody(container: Site, kind: str) -> None:
    reader, writer = await asyncio.open_unix_connection(container.folder / "ask.sock")
    writer.write(SILLY[kind])
    if SILLY[kind]:
        writer.write_eof()
    process = await container.begin("phalanx", "requeue")
    await answered(await container.question())
    outcome = await said(process)
    writer.close()

    assert (0, "well\n", "") == outcome
    assert 1 == container.opened
    assert len(await reader.read()) < 500


async def test_input_that_nobody_wants_ends_the_question(container: Site) -> None:
    reader, writer = await asyncio.open_unix_connection(container.folder / "ask.sock")
    writer.write(frame(b"a", b"1 1 0 24 80\0/\0phalanx\0") + frame(b"i", b"x" * 100))
    stream = await container.question()
    async with asyncio.timeout(PATIENCE_S):
        closed = await stream.ended()
        answer = await reader.read()
    writer.close()

    assert "cancelled" == closed.code
    assert answer.endswith(frame(b"x", b"\x40"))


async def test_too_large_an_environment_is_refused_with_the_reason(container: Site) -> None:
    large = {f"V{number}": "x" * 100_000 for number in range(6)}
    code, _, err = await said(await container.begin("phalanx", "requeue", env=large))

    assert 64 == code
    assert "524288 are the most" in err


async def test_whoever_knocks_without_asking_holds_few_descriptors_of_the_agent(
    container: Site,
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    lines = [await asyncio.open_unix_connection(container.folder / "ask.sock") for _ in range(60)]
    for _ in range(10):
        await asyncio.sleep(0)
    held = len(os.listdir("/proc/self/fd")) - before - len(lines)
    for _, writer in lines:
        writer.close()
        await writer.wait_closed()
    process = await container.begin("phalanx", "requeue")
    await answered(await container.question())

    assert held <= ask.QUESTIONS_AT_ONCE
    assert (0, "well\n", "") == await said(process)


async def test_too_many_questions_at_a_time_are_refused_with_the_reason(
    container: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_agent.loops.asks.AT_ONCE", 2)
    waiting = [await container.begin("phalanx", "x") for _ in range(2)]
    streams = [await container.question() for _ in waiting]
    code, _, err = await said(await container.begin("phalanx", "x"))
    for stream in streams:
        await answered(stream)
    for process in waiting:
        await said(process)

    assert 75 == code
    assert "2 commands of this container are under way" in err


async def test_a_reader_that_does_not_read_makes_only_its_own_answer_wait(
    container: Site,
) -> None:
    _, writer = await asyncio.open_unix_connection(container.folder / "ask.sock")
    writer.write(frame(b"a", b"1 1 0 24 80\0/\0phalanx\0"))
    stuck = await container.question()
    flood = asyncio.ensure_future(stuck.write(STDOUT, bytes(8 << 20)))
    process = await container.begin("phalanx", "show")
    await answered(await container.question())
    outcome = await said(process)
    finished = flood.done()
    writer.close()
    with pytest.raises(StreamClosed):
        await flood

    assert (0, "well\n", "") == outcome
    assert not finished
