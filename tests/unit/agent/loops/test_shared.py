"""What is fetched once for many kernels."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from phalanx_agent.core.recipe import Account, Image
from phalanx_agent.core.refused import Refused
from phalanx_agent.docker.port import Unavailable
from phalanx_agent.loops import fetch
from phalanx_agent.loops.accounts import Accounts
from phalanx_agent.loops.workshop import Once
from phalanx_wire.control import Message
from phalanx_wire.mux import Mux, Stream, StreamClosed
from phalanx_wire.stream import STDOUT, Call, Closed, Open
from tests.support.fake_engine import ALPINE, FakeEngine, refusal
from tests.support.fake_host import FakeHost

DIGEST = "sha256:" + "1" * 64


class Manager:
    """The other end of an upload: says `data`, then ends with `code`."""

    def __init__(self, data: bytes, code: str = "") -> None:
        self._data, self._code = data, code
        self._tasks: list[tuple[Open, Stream]] = []
        self._there = Mux(self._to_agent, 0, self._asked)
        self._here = Mux(self._to_manager, 1, lambda *_: None)

    async def _to_agent(self, message: Message) -> None:
        self._here.receive(message)

    async def _to_manager(self, message: Message) -> None:
        self._there.receive(message)

    def _asked(self, message: Open, stream: Stream) -> None:
        self._tasks.append((message, stream))

    async def open(self, call: Call) -> Stream:
        stream = await self._here.open(call)
        _, theirs = self._tasks.pop()
        if self._data:
            await theirs.write(STDOUT, self._data)
        await theirs.close(code=self._code, why="because")
        return stream


async def read(manager: Manager) -> bytes:
    return b"".join([chunk async for chunk in fetch.upload(manager.open, DIGEST)])


async def test_an_upload_is_read_to_its_end() -> None:
    assert b"tar" == await read(Manager(b"tar"))


async def test_an_upload_that_nobody_has_is_refused() -> None:
    with pytest.raises(Refused, match="has no upload"):
        await read(Manager(b"", "upload_unknown"))


async def test_an_upload_that_breaks_off_is_tried_again_later() -> None:
    with pytest.raises(Unavailable, match="because"):
        await read(Manager(b"ta", "link_lost"))


async def test_without_a_manager_there_is_no_upload_now() -> None:
    async def nobody(call: Call) -> Stream:
        raise StreamClosed(Closed(1, code="link_lost", why=f"{type(call).__name__} is lost"))

    with pytest.raises(Unavailable, match="is lost"):
        [chunk async for chunk in fetch.upload(nobody, DIGEST)]


async def test_root_needs_no_look_into_the_image() -> None:
    engine = FakeEngine()

    assert Account(0, 0, "root", "/root") == await Accounts(engine).of(ALPINE, "")
    assert [] == engine.calls


async def test_an_image_is_read_once_for_all_its_users() -> None:
    engine = FakeEngine()
    engine.passwd = "ann:x:1000:1000::/home/ann:/bin/sh\n"
    accounts = Accounts(engine)

    assert Account(1000, 1000, "ann", "/home/ann") == await accounts.of(ALPINE, "ann")
    assert Account(7, 0, passwd=engine.passwd) == await accounts.of(ALPINE, "7")
    assert ["user_files"] == engine.calls


async def test_a_user_that_the_image_lacks_is_refused() -> None:
    with pytest.raises(Refused, match="no user 'bob'"):
        await Accounts(FakeEngine()).of(ALPINE, "bob")


async def test_kernels_that_begin_together_share_one_look_up(host: FakeHost) -> None:
    workshop = host.workshop()
    async with asyncio.TaskGroup() as tasks:
        found = [tasks.create_task(workshop.image("alpine", lambda _: None)) for _ in range(16)]

    assert [ALPINE] * 16 == [task.result() for task in found]
    assert 1 == host.engine.calls.count("image")


async def test_a_tag_that_was_moved_is_seen_a_second_later(host: FakeHost) -> None:
    workshop = host.workshop()
    await workshop.image("alpine", lambda _: None)
    host.engine.images["alpine"] = moved = Image("sha256:" + "b" * 64)
    host.skipped += 2

    assert moved == await workshop.image("alpine", lambda _: None)


async def test_a_look_up_that_fails_is_made_anew_by_the_next(host: FakeHost) -> None:
    host.engine.failures["image"] = deque([refusal(500)])
    workshop = host.workshop()
    with pytest.raises(Unavailable):
        await workshop.image("alpine", lambda _: None)

    assert ALPINE == await workshop.image("alpine", lambda _: None)


async def test_one_at_a_time_is_inside() -> None:
    once, inside, most = Once(), 0, 0

    async def enter() -> None:
        nonlocal inside, most
        async with once.alone("key"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(enter())

    assert 1 == most
    assert {} == once._locks
