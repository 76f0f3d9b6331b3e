"""Manager processes on one PostgreSQL, and an agent that follows whoever leads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from phalanx_agent.rpc.identity import own_keys
from phalanx_agent.rpc.manager import Link, enrol
from phalanx_manager.rpc import keys
from phalanx_wire import join
from phalanx_wire.control import Goals, Welcome
from phalanx_wire.ids import AgentId
from phalanx_wire.mux import Stream
from phalanx_wire.stream import Open
from tests.support.ideal_agent import IdealAgent
from tests.support.ports import free_port

PATIENCE_S = 30.0
_ENDED = "it ended"


@dataclass
class Daemon:
    """A manager's process; what it logs is read as it comes."""

    folder: Path
    http: int
    rpc: int
    process: asyncio.subprocess.Process | None = None
    lines: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    seen: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    @property
    def token(self) -> str:
        return (self.folder / "admin.token").read_text().strip()

    async def start(self, database: str, rpcs: list[int]) -> None:
        config = self.folder / "manager.toml"
        advertise = ", ".join(f'"tcp://127.0.0.1:{port}"' for port in rpcs)
        config.write_text(
            f'data_dir = "{self.folder}"\nhttp = "127.0.0.1:{self.http}"\nurl = "{self.url}"\n'
            f'rpc = "tcp://127.0.0.1:{self.rpc}"\nadvertise = [{advertise}]\n'
            f'database = "{database}"\n'
        )
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "phalanx_manager", "--config", str(config),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip

    async def read(self) -> None:
        """Take what it logs, until it ends."""
        assert self.process is not None
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.seen.append(line.decode())
            self.lines.put_nowait(line.decode())
        self.lines.put_nowait(_ENDED)

    async def says(self, event: str) -> str:
        """Wait until it logs an event."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    line = await self.lines.get()
                    if event in line:
                        return line
                    if line is _ENDED:
                        raise TimeoutError  # noqa: TRY301 - it will say nothing more
        except TimeoutError:
            raise AssertionError(f"it never said {event}:\n{''.join(self.seen)}") from None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class Follower:
    """The real agent's link over an agent without an engine; see `LinkHandler`."""

    def __init__(self, name: str, token: str, folder: Path) -> None:
        self.token = join.parse(token)
        self.ideal = IdealAgent(name, self.token)
        self.welcomes: asyncio.Queue[Welcome] = asyncio.Queue()
        self._folder = folder
        self._link: Link | None = None

    async def run(self) -> None:
        manager = await enrol(self._folder, self.ideal.name, self.token)
        self._link = Link(self.ideal.name, manager, own_keys(self._folder), self)
        await self._link.run()

    def welcomed(self, welcome: Welcome) -> None:
        self.welcomes.put_nowait(welcome)
        self._say()

    def goals(self, goals: Goals) -> None:
        self.ideal.take(goals)
        self._say()

    def heard(self, number: int) -> None:
        """Nothing beats here."""

    def opened(self, message: Open, stream: Stream) -> None:
        """Nothing is served here."""

    def unknown(self, why: str, *, told: bool) -> None:
        """Not looked at here."""

    def disconnected(self) -> None:
        """The link dials again."""

    def _say(self) -> None:
        assert self._link is not None
        self._link.say(self.ideal.observed())


@dataclass
class Pair:
    """Two managers, the first of which leads."""

    first: Daemon
    second: Daemon
    agent: Follower
    http: aiohttp.ClientSession


@asynccontextmanager
async def pair(database: str, folder: Path) -> AsyncIterator[Pair]:
    """Start two managers and an agent."""
    daemons = [Daemon(folder / name, free_port(), free_port()) for name in ("one", "two")]
    one, two = daemons
    rpcs = [daemon.rpc for daemon in daemons]
    for daemon in daemons:
        daemon.folder.mkdir(mode=0o700)
    keys.load_or_make(one.folder / "manager.key")
    shutil.copy(one.folder / "manager.key", two.folder / "manager.key")
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        await one.start(database, rpcs)
        stack.push_async_callback(one.end)
        reading = [tasks.create_task(one.read())]
        await one.says("manager.ready")
        shutil.copy(one.folder / "admin.token", two.folder / "admin.token")
        await two.start(database, rpcs)
        stack.push_async_callback(two.end)
        reading.append(tasks.create_task(two.read()))
        await two.says("lead.stands_by")
        headers = {"Authorization": f"Bearer {one.token}"}
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        async with http.post(f"{one.url}/v1/agent-tokens", json={"name": "host-1"}) as response:
            token = (await response.json())["token"]
        agent = Follower(AgentId("host-1"), token, folder / "agent")
        following = tasks.create_task(agent.run())
        yield Pair(one, two, agent, http)
        for task in (*reading, following):
            task.cancel()
