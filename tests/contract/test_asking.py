"""What a container asks, from its socket over the real link to the real store and back."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from phalanx_agent.loops.asks import Asks
from phalanx_agent.rpc.identity import own_keys
from phalanx_agent.rpc.manager import Link, enrol
from phalanx_manager.inside.dispatch import Inside
from phalanx_manager.rpc.agents import Agents
from phalanx_manager.rpc.keys import ServerKeys, make_pair
from phalanx_manager.rpc.port import House
from phalanx_manager.rpc.shares import Shares
from phalanx_manager.rpc.steps import Steps
from phalanx_wire.control import Goals, Welcome
from phalanx_wire.ids import AgentId
from phalanx_wire.join import JoinToken
from phalanx_wire.mux import Stream
from phalanx_wire.stream import Open
from tests.support.link import LOCAL, Directory, Handler
from tests.support.manager_api import Scene, scene

PATIENCE_S = 30.0
HOME = AgentId("gpu-1")


class Told:
    """The agent's hub, as far as asking goes."""

    def __init__(self) -> None:
        self.asks: Asks | None = None

    def welcomed(self, _welcome: Welcome) -> None:
        assert self.asks is not None
        self.asks.linked()

    def heard(self, _number: int) -> None:
        return

    def goals(self, _goals: Goals) -> None:
        return

    def opened(self, _message: Open, _stream: Stream) -> None:
        return

    def disconnected(self) -> None:
        return

    def unknown(self, why: str, *, told: bool) -> None:  # noqa: ARG002 - the port has it so
        return


@asynccontextmanager
async def manager(
    api: Scene, bind: str, keys: ServerKeys, directory: Directory
) -> AsyncIterator[Agents]:
    inside = Inside(api.store, api.clock, api.doors.uploads.serve)
    house = House("cluster-1", 5.0, "10.212.0.0/20", inside.serve)
    async with Agents.listen(bind, keys, Handler(), directory, house) as agents:
        inside.attach(agents, Steps(Shares(agents)))
        yield agents


@asynccontextmanager
async def agent(folder: Path, token: JoinToken) -> AsyncIterator[Asks]:
    told = Told()
    link = Link(HOME, await enrol(folder, HOME, token), own_keys(folder), told)
    told.asks = Asks(link.open)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(link.run()), tasks.create_task(told.asks.run())]
        yield told.asks
        for task in running:
            task.cancel()


async def asked(folder: Path, *argv: str) -> tuple[int, str]:
    """Ask as a process of the container does: the code, and all that was said."""
    reader, writer = await asyncio.open_unix_connection(folder / "ask.sock")
    words = "\0".join([f"1 {len(argv)} 0 24 80", "/", *argv, ""]).encode()
    writer.write(struct.pack("!cI", b"a", len(words)) + words)
    said = ""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            kind, size = struct.unpack("!cI", await reader.readexactly(5))
            content = await reader.readexactly(size)
            if kind == b"x":
                writer.close()
                await writer.wait_closed()
                return content[0], said
            said += content.decode()


async def test_a_container_asks_over_the_link_also_while_the_manager_is_restarted(
    tmp_path: Path,
) -> None:
    keys, directory, one_time = make_pair(), Directory(), make_pair()
    directory.tokens[one_time.public] = None
    folder = tmp_path / "material"
    folder.mkdir()
    async with scene(tmp_path) as api, AsyncExitStack() as host:
        row = await api.running()
        async with manager(api, LOCAL, keys, directory) as agents:
            address = agents.address
            token = JoinToken((address,), keys.public, one_time.secret)
            asks = await host.enter_async_context(agent(tmp_path / "state", token))
            host.enter_context(asks.door(row.kernels[1].id, folder))
            hosts = await asked(folder, "scontrol", "show", "hostnames")
        waiting = asyncio.ensure_future(asked(folder, "phalanx", "requeue"))
        async with manager(api, address, keys, directory):
            requeued = await waiting
        state = (await api.view("demo")).state

    assert (0, "main1\nsub1\n") == hosts
    assert (0, "session demo goes back to the queue as attempt 2\n") == requeued
    assert "stopping" == state
