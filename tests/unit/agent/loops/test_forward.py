"""Connections into containers, over two muxes joined by a queue and real sockets."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from phalanx_agent.core.ssh_files import AUTHORIZED_KEYS, MAX_GUESTS
from phalanx_wire.control import Member
from phalanx_wire.lifecycle import KernelState as S
from phalanx_wire.mux import Stream
from phalanx_wire.stream import STDIN, ConnectCall, Data, Eof
from tests.support.agent_life import HERE, MAIN1, assignment, gang, living
from tests.support.fake_host import FakeHost
from tests.unit.agent.loops import test_streams
from tests.unit.agent.loops.test_streams import STRANGE, Desk

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
KEYS = [
    "ssh-ed25519 "
    + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([number]) * 32).decode()
    for number in range(MAX_GUESTS + 1)
]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say all back once all has come: this needs both ends of data."""
    writer.write((await reader.read()).upper())
    await writer.drain()
    writer.close()


OWN_ADDRESS = "127.0.0.2"
GANG = gang(members=(Member(0, "main1", HERE, OWN_ADDRESS, "hk0", "uk0"),))


@asynccontextmanager
async def desk(host: FakeHost) -> AsyncIterator[Desk]:
    """The manager's end, with a container whose address is one of this machine's."""
    async with test_streams.desk(host, None) as made:
        await made.life.aim(assignment(S.RUNNING), of=GANG)
        await made.life.until(lambda: made.life.state() == S.RUNNING)
        yield made


@asynccontextmanager
async def listening(serve: Serve, address: str = "127.0.0.1") -> AsyncIterator[int]:
    """A program that listens, as one in a container would; its port."""
    serving: list[asyncio.Task[object] | None] = []

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(noted, address, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in serving:
            assert task is not None
            task.cancel()
        await asyncio.gather(*(task for task in serving if task), return_exceptions=True)


async def until(true: Callable[[], object]) -> None:
    """Let everything go on until something holds."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - the kernel's buffers ring no bell
            await asyncio.sleep(0)


def closed_sockets(manager: Desk) -> bool:
    return [-1] == sorted({made.fileno() for made in manager.network.made})


async def test_bytes_go_both_ways_and_each_way_ends_by_itself(host: FakeHost) -> None:
    async with desk(host) as manager, listening(echo) as port:
        stream = await manager.ask(ConnectCall(MAIN1, port))
        await stream.write(STDIN, b"hel")
        await stream.write(STDIN, b"lo")
        await stream.eof()
        items = [item async for item in stream]

        assert [b"HELLO"] == [item.data for item in items if isinstance(item, Data)]
        assert isinstance(items[-1], Eof)
        assert "" == (await stream.ended()).code
        assert closed_sockets(manager)


async def test_a_program_that_listens_on_its_address_only_is_reached_too(host: FakeHost) -> None:
    async with desk(host) as manager, listening(echo, OWN_ADDRESS) as port:
        stream = await manager.ask(ConnectCall(MAIN1, port))
        await stream.write(STDIN, b"hi")
        await stream.eof()

        assert [b"HI"] == [item.data async for item in stream if isinstance(item, Data)]


async def test_much_passes_whole(host: FakeHost) -> None:
    sent = os.urandom(3 << 20)

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()

    async def send(stream: Stream) -> None:
        await stream.write(STDIN, sent)
        await stream.eof()

    async with desk(host) as manager, listening(pour) as port:
        stream = await manager.ask(ConnectCall(MAIN1, port))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(stream))
            got = b"".join([item.data async for item in stream if isinstance(item, Data)])

        assert sent == got


async def test_what_is_not_read_is_held_back(host: FakeHost) -> None:
    waits = asyncio.Event()

    async def deaf(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await waits.wait()

    async with desk(host) as manager, listening(deaf) as port:
        stream = await manager.ask(ConnectCall(MAIN1, port))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await stream.write(STDIN, bytes(64 << 20))
        await stream.close()

        await until(lambda: closed_sockets(manager))


async def test_a_caller_that_leaves_ends_the_connection(host: FakeHost) -> None:
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async with desk(host) as manager, listening(wait) as port:
        stream = await manager.ask(ConnectCall(MAIN1, port))
        await stream.write(STDIN, b"x")
        await until(lambda: manager.network.made)
        await stream.close()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_connection_that_breaks_is_said(host: FakeHost) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()  # with data unread: a reset

    async with desk(host) as manager, listening(reset) as port:
        stream = await manager.ask(ConnectCall(MAIN1, port))
        await stream.write(STDIN, bytes(1 << 20))

        assert "connection_reset" == (await stream.ended()).code
        assert closed_sockets(manager)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (ConnectCall(STRANGE, 80), "not_running"),
        (ConnectCall(MAIN1, -1), "bad_port"),
        (ConnectCall(MAIN1, 70_000), "bad_port"),
        (ConnectCall(MAIN1, 1), "connection_refused"),
        (ConnectCall(MAIN1, 80, "ssh-ed25519 rubbish"), "bad_key"),
    ],
)
async def test_what_cannot_be_connected_is_refused_with_a_code(
    host: FakeHost, call: ConnectCall, code: str
) -> None:
    async with desk(host) as manager:
        assert code == await manager.refusal(call)
        assert all(made.fileno() == -1 for made in manager.network.made)


async def test_a_process_that_is_not_the_containers_any_more_is_left_alone(
    host: FakeHost,
) -> None:
    async with desk(host) as manager:
        manager.network.alive = False

        assert "not_running" == await manager.refusal(ConnectCall(MAIN1, 80))
        assert [] == manager.network.made


async def test_no_thread_stays(host: FakeHost) -> None:
    async with desk(host) as manager, listening(echo) as port:
        before = threading.active_count()
        stream = await manager.ask(ConnectCall(MAIN1, port))
        await stream.eof()
        await stream.ended()

        assert before == threading.active_count()


# ---------------------------------------------------------------- keys


def allowed(host: FakeHost) -> list[str]:
    return host.scratch.texts[MAIN1][AUTHORIZED_KEYS].splitlines()


async def test_a_key_from_outside_is_let_in_once_beside_the_peers(host: FakeHost) -> None:
    async with desk(host) as manager:
        before = allowed(host)
        for _again in range(3):
            await manager.refusal(ConnectCall(MAIN1, 1, f"{KEYS[0]} me@laptop"))

        assert [*before, f"{KEYS[0]} guest"] == allowed(host)


async def test_of_too_many_keys_from_outside_the_oldest_go(host: FakeHost) -> None:
    async with desk(host) as manager:
        peers = allowed(host)
        for key in KEYS:
            await manager.refusal(ConnectCall(MAIN1, 1, key))

        assert [*peers, *(f"{key} guest" for key in KEYS[-MAX_GUESTS:])] == allowed(host)


async def test_a_key_from_outside_outlives_the_agent(host: FakeHost) -> None:
    async with desk(host) as manager:
        await manager.refusal(ConnectCall(MAIN1, 1, KEYS[0]))
        before = allowed(host)
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING), of=GANG)
        await life.until(lambda: life.state() == S.RUNNING)

    assert before == allowed(host)
