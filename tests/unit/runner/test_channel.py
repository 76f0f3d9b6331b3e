"""The agent's end, against peers that are processes of their own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from phalanx_runner import messages
from phalanx_runner.channel import RunnerChannel
from phalanx_runner.messages import Event, Hello, Pong, Stamp
from tests.unit.runner.box import PATIENCE_S

# Connects, then sends what it is told to by lines of hex, and tells what it receives.
PEER = """
import os, socket, sys, threading
os.chdir(sys.argv[1])
peer = socket.socket(socket.AF_UNIX)
peer.connect("agent.sock")
def receive():
    while data := peer.recv(4096):
        print(data.hex(), flush=True)
    print("closed", flush=True)
print("connected", flush=True)
threading.Thread(target=receive, daemon=True).start()
for line in sys.stdin:
    try:
        peer.sendall(bytes.fromhex(line))
    except OSError:
        pass
"""


class Peer:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data.hex().encode() + b"\n")

    async def hears(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return (await self._process.stdout.readline()).decode().strip()

    def end(self) -> None:
        self._process.kill()


@asynccontextmanager
async def peer(directory: Path) -> AsyncIterator[Peer]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-c", PEER, str(directory)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    one = Peer(process)
    try:
        assert "connected" == await one.hears()
        yield one
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class Agent:
    """What an agent knows of one container."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.events: list[Event] = []
        self._tell: asyncio.Queue[None] = asyncio.Queue()

    def note(self, event: Event) -> None:
        self.events.append(event)
        self._tell.put_nowait(None)

    async def has(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.events) < count:
                await self._tell.get()


def pong(seq: int) -> bytes:
    return b'{"ev":"pong","seq":%d,"t":1}\n' % seq


@pytest.fixture
async def agent() -> Agent:
    return Agent()


@asynccontextmanager
async def open_channel(agent: Agent, directory: Path) -> AsyncIterator[RunnerChannel]:
    async with RunnerChannel.listen(directory, lambda: agent.pid, agent.note) as channel:
        yield channel


async def test_pid_1_of_the_container_is_heard_and_spoken_to(agent: Agent, tmp_path: Path) -> None:
    async with open_channel(agent, tmp_path) as channel, peer(tmp_path) as one:
        agent.pid = one.pid
        channel.recheck()
        one.say(b'{"ev":"hello","proto":1,"kernel":"k","last_seq":0}\n' + pong(1))
        await agent.has(2)

        assert [Hello(1, "k", 0), Pong(Stamp(1, 1))] == agent.events
        assert channel.send(messages.start())
        assert messages.start() == bytes.fromhex(await one.hears())


async def test_a_connection_waits_until_the_containers_pid_is_known(
    agent: Agent, tmp_path: Path
) -> None:
    async with open_channel(agent, tmp_path) as channel, peer(tmp_path) as one:
        one.say(pong(1))
        channel.recheck()
        assert not channel.connected
        assert not channel.send(messages.ping())
        agent.pid = one.pid
        channel.recheck()
        await agent.has(1)

        assert channel.connected


async def test_any_other_process_is_turned_away_unheard(agent: Agent, tmp_path: Path) -> None:
    agent.pid = 1
    async with open_channel(agent, tmp_path) as channel, peer(tmp_path) as stranger:
        assert "closed" == await stranger.hears()
        assert 1 == channel.tally.strangers
        assert not channel.connected
        assert [] == agent.events


async def test_the_number_of_waiting_connections_is_bounded(agent: Agent, tmp_path: Path) -> None:
    async with open_channel(agent, tmp_path) as channel:
        sockets = [
            await asyncio.open_unix_connection(str(tmp_path / "agent.sock")) for _ in "x" * 9
        ]
        reader, _ = sockets[8]
        async with asyncio.timeout(PATIENCE_S):
            assert b"" == await reader.read()
        for _, writer in sockets:
            writer.close()

        assert 1 == channel.tally.strangers


async def test_garbage_is_counted_and_what_follows_is_heard(agent: Agent, tmp_path: Path) -> None:
    async with open_channel(agent, tmp_path) as channel, peer(tmp_path) as one:
        agent.pid = one.pid
        channel.recheck()
        one.say(b'{"ev":\n\xff\xfe\x00\n[1]\n' + pong(1))
        await agent.has(1)

        assert 3 == channel.tally.malformed


async def test_a_line_without_end_is_dropped_and_takes_no_memory(
    agent: Agent, tmp_path: Path
) -> None:
    async with open_channel(agent, tmp_path) as channel, peer(tmp_path) as one:
        agent.pid = one.pid
        channel.recheck()
        for _ in range(100):
            one.say(b"x" * 10_000)
        one.say(b"\n" + pong(1))
        await agent.has(1)

        assert (1, 0) == (channel.tally.oversized, channel.tally.malformed)


async def test_an_event_is_heard_once(agent: Agent, tmp_path: Path) -> None:
    async with open_channel(agent, tmp_path) as channel, peer(tmp_path) as one:
        agent.pid = one.pid
        channel.recheck()
        one.say(pong(1) + pong(2) + pong(1) + pong(2) + pong(3))
        await agent.has(3)

        assert [1, 2, 3] == [e.stamp.seq for e in agent.events if isinstance(e, Pong)]
        assert 2 == channel.tally.repeated


async def test_a_flood_makes_its_sender_wait(agent: Agent, tmp_path: Path) -> None:
    async with open_channel(agent, tmp_path) as channel, peer(tmp_path) as one:
        agent.pid = one.pid
        channel.recheck()
        one.say(b"".join(pong(i) for i in range(1, 2200)))
        await agent.has(2199)

        assert channel.tally.throttled >= 1


async def test_a_runner_that_reconnects_takes_its_old_connections_place(
    agent: Agent, tmp_path: Path
) -> None:
    async with open_channel(agent, tmp_path) as channel, peer(tmp_path) as one:
        agent.pid = one.pid
        channel.recheck()
        one.say(pong(1))
        await agent.has(1)
        agent.pid = None
        async with peer(tmp_path) as two:
            two.say(pong(1) + pong(2))
            agent.pid = two.pid
            channel.recheck()
            await agent.has(2)

            assert "closed" == await one.hears()
            assert [1, 2] == [e.stamp.seq for e in agent.events if isinstance(e, Pong)]


async def test_a_lost_runner_is_no_longer_connected(agent: Agent, tmp_path: Path) -> None:
    async with open_channel(agent, tmp_path) as channel, peer(tmp_path) as one:
        agent.pid = one.pid
        channel.recheck()
        one.end()
        async with asyncio.timeout(PATIENCE_S):
            while channel.connected:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0)

        assert not channel.send(messages.ping())


async def test_a_runner_that_does_not_read_is_not_sent_more(agent: Agent, tmp_path: Path) -> None:
    deaf = "import os,socket,sys; os.chdir(sys.argv[1]); s=socket.socket(socket.AF_UNIX)"
    deaf += "; s.connect('agent.sock'); print(flush=True); sys.stdin.read()"
    async with open_channel(agent, tmp_path) as channel:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-c", deaf, str(tmp_path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        agent.pid = process.pid
        channel.recheck()
        sent = sum(channel.send(b"x" * 1023 + b"\n") for _ in range(2000))
        process.kill()
        await process.communicate()

        assert 0 < sent < 1000


async def test_a_path_longer_than_a_sockets_address_works(agent: Agent, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    async with open_channel(agent, deep) as channel, peer(deep) as one:
        agent.pid = one.pid
        channel.recheck()

        assert channel.connected


async def test_a_dead_agents_socket_is_replaced(agent: Agent, tmp_path: Path) -> None:
    async with open_channel(agent, tmp_path):
        pass
    assert (tmp_path / "agent.sock").exists()
    async with open_channel(agent, tmp_path) as channel, peer(tmp_path) as one:
        agent.pid = one.pid
        channel.recheck()

        assert channel.connected
