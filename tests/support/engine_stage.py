"""A stage for the contract of `docker.port`: the same acts on the double and on a real engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from phalanx_agent.core.recipe import Bind, ContainerRecipe, Image
from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import Broke, Docker, EngineEvent, ExecSession, Reopened
from phalanx_wire import names
from phalanx_wire.api import LogLine
from phalanx_wire.control import Network
from phalanx_wire.ids import AgentId, KernelId, SessionId, kernel_id
from tests.support.fake_engine import FakeEngine, FakeExec

SESSION: Final = SessionId("contractaaaa")
SUBNET: Final = "10.213.77.0/26"
EGRESS: Final = "10.212.0.0/20"
WITHIN_S: Final = 60.0
_TRAPS: Final = (
    "trap 'exit 3' USR1; trap : TERM; echo out 1; echo err 2 >&2; echo out 3; "
    "while :; do sleep 0.05; done"
)


def network(driver: str = "bridge", attempt: int = 1, subnet: str = SUBNET) -> Network:
    """The private network of an attempt."""
    assert driver in {"bridge", "overlay"}
    return Network(
        names.network_name(SESSION, attempt),
        "overlay" if driver == "overlay" else "bridge",
        subnet,
        AgentId("host1"),
    )


@dataclass(frozen=True)
class Wanted:
    """Builds recipes. The command says three lines and lives until USR1, which ends it with 3."""

    image: Image
    network_id: str
    egress: bool = False

    def recipe(
        self,
        host_name: str = "main1",
        rank: int = 0,
        address: str = "10.213.77.62",
        command: tuple[str, ...] = ("sh", "-c", _TRAPS),
        spec_hash: str = "hash",
    ) -> ContainerRecipe:
        """The recipe of one kernel."""
        return ContainerRecipe(
            name=names.container_name(SESSION, 1, host_name),
            host_name=host_name,
            labels={
                names.LABEL_SESSION: SESSION,
                names.LABEL_ATTEMPT: "1",
                names.LABEL_KERNEL: kernel_id(SESSION, 1, rank),
                names.LABEL_RANK: str(rank),
                names.LABEL_SPEC_HASH: spec_hash,
            },
            image=self.image.id,
            entrypoint=command[:1],
            command=command[1:],
            env=("PATH=/bin:/usr/bin:/sbin:/usr/sbin",),
            workdir="",
            user="",
            binds=(Bind("/opt", names.BUNDLE_MOUNT),),
            network_id=self.network_id,
            address=address,
            egress=self.egress,
            cpu_milli=500,
            mem_bytes=128 << 20,
            shm_bytes=16 << 20,
            pids=64,
            gpus=(),
            stop_timeout_s=5,
        )


class Stage(Protocol):
    """An engine of the contract, with what its tests need to do behind the port."""

    docker: Docker
    ref: str

    def wanted(self, image: Image, network_id: str) -> Wanted:
        """Recipes for containers that live until `end`."""

    async def end(self, container_id: str) -> None:
        """The container's command ends with 3."""

    async def spoken(self, container_id: str) -> None:
        """Wait until the command has said its three lines."""

    def next_start_fails(self, recipe: ContainerRecipe) -> ContainerRecipe:
        """A recipe whose container can never run."""

    async def runs(
        self, container_id: str, *, stdin: bool, begins: Callable[[str], None] | None = None
    ) -> ExecSession:
        """A command that says `hello` and then its input, and ends with 7."""


class FakeStage:
    """The double."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.docker: Docker = self.engine
        self.ref = "alpine"

    def wanted(self, image: Image, network_id: str) -> Wanted:
        return Wanted(image, network_id)

    async def end(self, container_id: str) -> None:
        self.engine.end(container_id, 3)

    async def spoken(self, container_id: str) -> None:
        self.engine.output[container_id] = [
            LogLine(1, False, "out 1"),
            LogLine(2, True, "err 2"),
            LogLine(3, False, "out 3"),
        ]

    def next_start_fails(self, recipe: ContainerRecipe) -> ContainerRecipe:
        self.engine.start_error = "no such file"
        return recipe

    async def runs(
        self, container_id: str, *, stdin: bool, begins: Callable[[str], None] | None = None
    ) -> ExecSession:
        fake = FakeExec(output=deque([(1, b"hello\n")]), code=7)
        fake.endless = stdin
        self.engine.execs.append(fake)
        return await self.docker.exec(container_id, ("x",), tty=False, stdin=stdin, begins=begins)


class RealStage:
    """A real engine."""

    def __init__(self, docker: DockerEngine, ref: str) -> None:
        self.docker: Docker = docker
        self.ref = ref

    def wanted(self, image: Image, network_id: str) -> Wanted:
        return Wanted(image, network_id)

    async def end(self, container_id: str) -> None:
        await self.spoken(container_id)
        await self.docker.kill(container_id, "SIGUSR1")

    async def spoken(self, container_id: str) -> None:
        async with asyncio.timeout(WITHIN_S), aclosing_lines(self.docker, container_id) as lines:
            seen = [line async for line in first(3, lines)]
        assert {"out 1", "err 2", "out 3"} == {line.text for line in seen}

    def next_start_fails(self, recipe: ContainerRecipe) -> ContainerRecipe:
        return replace(recipe, entrypoint=("/no/such/program",))

    async def runs(
        self, container_id: str, *, stdin: bool, begins: Callable[[str], None] | None = None
    ) -> ExecSession:
        command = ("sh", "-c", "echo hello; cat; exit 7" if stdin else "echo hello; exit 7")
        return await self.docker.exec(container_id, command, tty=False, stdin=stdin, begins=begins)


async def each(pieces: AsyncIterator[Iterator[LogLine]]) -> AsyncIterator[LogLine]:
    """A log's lines, one after the other."""
    async for piece in pieces:
        for line in piece:
            yield line


@asynccontextmanager
async def aclosing_lines(
    docker: Docker, container_id: str
) -> AsyncIterator[AsyncIterator[LogLine]]:
    """A followed log whose connection is closed at the end of the block."""
    pieces = docker.logs(container_id, follow=True)
    async with aclosing(pieces):  # type: ignore[type-var] # the port promises an iterator only
        yield each(pieces)


async def first(count: int, lines: AsyncIterator[LogLine]) -> AsyncIterator[LogLine]:
    """So many of the lines."""
    for _ in range(count):
        yield await anext(lines)


class Ears:
    """Listens to an engine's events in the background of a test."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker
        self._heard: asyncio.Queue[EngineEvent | Broke | Reopened] = asyncio.Queue()

    async def listen(self) -> None:
        async for event in self._docker.events():
            self._heard.put_nowait(event)

    async def until(self, true: Callable[[EngineEvent | Broke | Reopened], bool]) -> None:
        """Wait for an event."""
        async with asyncio.timeout(WITHIN_S):
            while not true(await self._heard.get()):
                continue

    async def action(self, container_id: str, action: str, kernel: KernelId) -> None:
        """Wait until something has happened to a container."""
        await self.until(lambda event: event == EngineEvent(container_id, kernel, action))

    async def reopened(self) -> None:
        """Wait until the stream of events has begun."""
        await self.until(lambda event: isinstance(event, Reopened))


@asynccontextmanager
async def listening(docker: Docker) -> AsyncIterator[Ears]:
    """Ears that are open before the block begins."""
    ears = Ears(docker)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(ears.listen())
        await ears.reopened()
        try:
            yield ears
        finally:
            task.cancel()


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is true, as often as the engine answers."""
    async with asyncio.timeout(WITHIN_S):
        while not await true():  # noqa: ASYNC110 - the engine has no bell for it
            await asyncio.sleep(0.02)
