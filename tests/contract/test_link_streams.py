"""Bytes over the real link on the loopback: fair, bounded, ended with the link."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any

import pytest
import zmq
import zmq.asyncio

from phalanx_manager.rpc import agents
from phalanx_wire.codec import MAX_GOALS_BYTES, decode
from phalanx_wire.control import Goals
from phalanx_wire.ids import AgentId, KernelId
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.stream import STDIN, STDOUT, Closed, Data, Eof, ExecCall, ReadCall, UploadCall
from tests.support.link import (
    PATIENCE_S,
    Peer,
    office,
    peer,
)

READ = ReadCall(KernelId("k"), "/data")


BIG = 8 << 20


async def test_big_streams_pass_in_both_directions_at_once() -> None:
    async def echo(stream: Stream) -> None:
        async for item in stream:
            match item:
                case Data():
                    await stream.write(STDOUT, item.data)
                case Eof():
                    break
                case _:
                    pass
        await stream.close(exit_code=0)

    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(agent.serve(echo))
            streams = [
                await here.agents.open(AgentId("gpu-1"), ExecCall(KernelId("k"), ("cat",)))
                for _stream in range(3)
            ]
            for stream in streams:
                tasks.create_task(_send(stream, BIG))
            assert [BIG] * 3 == list(await asyncio.gather(*(_count(s) for s in streams)))
            assert [0] * 3 == [stream.closed and stream.closed.exit_code for stream in streams]
            serving.cancel()


async def _send(stream: Stream, size: int) -> None:
    for _piece in range(size >> 20):
        await stream.write(STDIN, bytes(1 << 20))
    await stream.eof()


async def _count(stream: Stream) -> int:
    return sum([len(item.data) async for item in stream if isinstance(item, Data)])


async def test_a_slow_reader_slows_its_own_stream_only() -> None:
    sent = {"slow": 0, "quick": 0}

    async def pour(stream: Stream) -> None:
        assert isinstance(stream.call, ReadCall)
        for _piece in range(64):
            await stream.write(STDOUT, bytes(64 << 10))
            sent[stream.call.path] += 64 << 10
        await stream.close()

    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(agent.serve(pour))
            slow = await here.agents.open(AgentId("gpu-1"), ReadCall(KernelId("k"), "slow"))
            quick = await here.agents.open(AgentId("gpu-1"), ReadCall(KernelId("k"), "quick"))
            assert 4 << 20 == await _count(quick)
            assert 1 << 20 >= sent["slow"]
            assert 4 << 20 == await _count(slow)
            serving.cancel()


class Crowded:
    """A socket that has no room for so many messages."""

    def __init__(self, socket: zmq.asyncio.Socket, full: float) -> None:
        self._socket = socket
        self.full = full
        self.refused = asyncio.Semaphore(0)
        self.passed: list[str] = []

    async def send_multipart(self, parts: list[bytes], **options: Any) -> object:
        if self.full > 0:
            self.full -= 1
            self.refused.release()
            raise zmq.Again
        self.passed.append(type(decode(parts[-1], MAX_GOALS_BYTES)).__name__)
        return await self._socket.send_multipart(parts, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


async def test_what_an_agent_has_no_room_for_is_sent_when_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        monkeypatch.setattr(here.agents, "_socket", Crowded(here.agents._socket, full=20))
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(agent.serve(_counted))
            call = ExecCall(KernelId("k"), ("wc",))
            streams = [await here.agents.open(AgentId("gpu-1"), call) for _stream in range(3)]
            await asyncio.gather(*(_send(stream, 1 << 20) for stream in streams))
            ends = [(await stream.ended()).exit_code for stream in streams]
            serving.cancel()
        monkeypatch.undo()

    assert [1 << 20] * 3 == ends


async def _counted(stream: Stream) -> None:
    size = 0
    async for item in stream:
        if isinstance(item, Eof):
            break
        size += len(item.data) if isinstance(item, Data) else 0
    await stream.close(exit_code=size)


async def test_an_agent_that_takes_nothing_more_loses_its_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agents, "_TAKES_S", 0.05)
    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        stream = await here.agents.open(AgentId("gpu-1"), READ)
        monkeypatch.setattr(here.agents, "_socket", Crowded(here.agents._socket, full=math.inf))
        async with asyncio.timeout(30):
            await stream.write(STDIN, b"x")
            ended = await stream.ended()
        monkeypatch.undo()

    assert "link_lost" == ended.code
    assert ended.why.endswith("it has had no room for 0.05 s")


async def test_an_agent_that_takes_little_keeps_its_link_and_hears_its_goals_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes 256 pieces a second of what it is sent much faster, and 64 KiB each."""
    monkeypatch.setattr(agents, "_TAKES_S", 0.5)

    async def take_goals(agent: Peer) -> None:
        for piece in itertools.count():
            if decode(await agent.socket.recv(), MAX_GOALS_BYTES) == Goals(7):
                return
            if piece % 8 == 0:
                await asyncio.sleep(8 / 256)

    async with office() as here, peer(here, here.directory.add("gpu-1"), queue=8) as agent:
        await agent.greet("gpu-1")
        call = ExecCall(KernelId("k"), ("wc",))
        streams = [await here.agents.open(AgentId("gpu-1"), call) for _stream in range(50)]
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(take_goals(agent))
            sending = [tasks.create_task(s.write(STDIN, bytes(1 << 20))) for s in streams]
            await sending[35]
            assert await here.agents.send(AgentId("gpu-1"), Goals(7))
            assert not all(task.done() for task in sending)
            here_still = here.agents.connected()
            for task in sending:
                task.cancel()
        assert {AgentId("gpu-1")} == here_still


@pytest.mark.parametrize(
    ("before", "order"),
    [(0, ["Goals", "Data", "Data", "Data"]), (1, ["Data", "Goals", "Data", "Data"])],
    ids=["first in line", "behind one of many"],
)
async def test_goals_wait_for_one_message_of_streams_at_most(
    before: int, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when they have waited for long, so that a full link is tried for them rarely."""
    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        streams = [await here.agents.open(AgentId("gpu-1"), READ) for _stream in range(3)]
        full = Crowded(here.agents._socket, full=math.inf)
        monkeypatch.setattr(here.agents, "_socket", full)
        sending = [stream.write(STDIN, b"x") for stream in streams]
        sending.insert(before, _tell(here.agents))
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for number, one in enumerate(sending):
                tasks.create_task(one)
                for _try in range(8 if number == 0 else 0):
                    await full.refused.acquire()
            await asyncio.sleep(0)
            full.full = 0
        monkeypatch.undo()

    assert order == full.passed


async def _tell(link: agents.Agents) -> None:
    assert await link.send(AgentId("gpu-1"), Goals(7))


async def test_a_client_that_leaves_while_the_link_is_full_ends_its_stream_at_the_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends: asyncio.Queue[Closed] = asyncio.Queue()

    async def note(stream: Stream) -> None:
        ends.put_nowait(await stream.ended())

    async def use(stream: Stream) -> None:
        async with stream:
            await stream.ended()

    async with office() as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(agent.serve(note))
            stream = await here.agents.open(AgentId("gpu-1"), READ)
            using = tasks.create_task(use(stream))
            await asyncio.sleep(0)
            full = Crowded(here.agents._socket, full=math.inf)
            monkeypatch.setattr(here.agents, "_socket", full)
            for _time in range(2):  # the second comes while it tells the agent
                using.cancel()
                await full.refused.acquire()
            await asyncio.wait({using})
            full.full = 0
            assert "cancelled" == (await ends.get()).code
            serving.cancel()
        monkeypatch.undo()


async def test_an_agent_fetches_an_archive_by_a_stream_of_its_own() -> None:
    async def archive(agent: AgentId, stream: Stream) -> None:
        assert UploadCall("sha256:00") == stream.call
        await stream.write(STDOUT, b"x" * 100_000)
        await stream.close()

    async with office(archive) as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        mux = agent.mux(lambda _stream: None)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(agent.feed(mux))
            stream = await mux.open(UploadCall("sha256:00"))
            assert 100_000 == await _count(stream)
            feeding.cancel()


async def test_a_server_that_fails_ends_its_stream_with_a_code(
    logged: list[dict[str, object]],
) -> None:
    async def fail(agent: AgentId, stream: Stream) -> None:
        raise RuntimeError("a bug")

    async with office(fail) as here, peer(here, here.directory.add("gpu-1")) as agent:
        await agent.greet("gpu-1")
        mux = agent.mux(lambda _stream: None)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(agent.feed(mux))
            stream = await mux.open(UploadCall("sha256:00"))
            assert 0 == await _count(stream)
            assert stream.closed is not None
            assert "internal" == stream.closed.code
            feeding.cancel()


async def test_a_lost_link_ends_its_streams() -> None:
    async with office() as here:
        async with peer(here, here.directory.add("gpu-1")) as agent:
            await agent.greet("gpu-1")
            stream = await here.agents.open(AgentId("gpu-1"), READ)
        async with asyncio.timeout(PATIENCE_S):
            assert 0 == await _count(stream)
        assert stream.closed is not None
        assert "link_lost" == stream.closed.code
        with pytest.raises(StreamClosed):
            await stream.write(STDIN, b"x")
