from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import BinaryIO

import pytest

from phalanx_agent.host.spool import Spool

ALL_OF_IT = 1 << 62
"""More room than any disk has."""


async def each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_what_has_come_is_taken_in_order_while_it_comes(tmp_path: Path) -> None:
    pieces = [bytes([number]) * 100_000 for number in range(20)]
    with Spool(tmp_path) as spool:
        filling = asyncio.ensure_future(spool.fill(each(pieces)))
        taken = [chunk async for chunk in spool.chunks()]
        await filling

    assert b"".join(pieces) == b"".join(taken)
    assert [] == os.listdir(tmp_path)


async def test_whoever_fills_does_not_wait_while_there_is_room(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        await spool.fill(each([b"a", b"b"]))
        await spool.ready()
        taken = b"".join([chunk async for chunk in spool.chunks()])

    assert b"ab" == taken


@pytest.mark.parametrize("folder", [".", "gone"])
async def test_without_room_each_piece_waits_until_the_one_before_is_taken(
    tmp_path: Path, folder: str
) -> None:
    given: list[bytes] = []

    async def noting() -> AsyncIterator[bytes]:
        for piece in (b"a", b"b", b"c"):
            given.append(piece)
            yield piece

    with Spool(tmp_path / folder, left_free_bytes=ALL_OF_IT) as spool:
        filling = asyncio.ensure_future(spool.fill(noting()))
        await spool.ready()
        before = list(given)
        taken = [chunk async for chunk in spool.chunks()]
        await filling

    assert [b"a"] == before
    assert [b"a", b"b", b"c"] == taken


async def test_what_was_taken_takes_no_room_any_more(tmp_path: Path) -> None:
    room = iter([True, False, True, True])
    sizes: list[int] = []

    class Tight(Spool):
        def _has_room(self, file: BinaryIO) -> bool:
            sizes.append(os.fstat(file.fileno()).st_size)
            return next(room)

    pieces = [b"a" * 5000, b"b", b"c", b"d"]
    with Tight(tmp_path) as spool:
        filling = asyncio.ensure_future(spool.fill(each(pieces)))
        taken = [chunk async for chunk in spool.chunks()]
        await filling

    assert b"".join(pieces) == b"".join(taken)
    assert [0, 5000, 5000, 1] == sizes


async def test_a_source_that_fails_is_closed_and_its_error_told(tmp_path: Path) -> None:
    closed: list[bool] = []

    async def failing() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            raise ConnectionError
        finally:
            closed.append(True)

    with Spool(tmp_path) as spool, pytest.raises(ConnectionError):
        await spool.fill(failing())

    assert [True] == closed
