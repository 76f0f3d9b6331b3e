"""Bytes over the real link on the loopback: fair, bounded, ended with the link."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
import zmq
import zmq.asyncio

from phalanx_manager.rpc import agents
from phalanx_wire.ids import AgentId, KernelId
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.stream import STDIN, STDOUT, Data, Eof, ExecCall, ReadCall, UploadCall
from tests.support.link import (
    PATIENCE_S,
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

    async def send_multipart(self, *parts: Any, **options: Any) -> object:
        if self.full > 0:
            self.full -= 1
            raise zmq.Again
        return await self._socket.send_multipart(*parts, **options)

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
    assert ended.why.endswith("it has taken nothing for 0.05 s")


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
