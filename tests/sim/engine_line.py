"""One agent's line to its engine: slow, sometimes broken, and cut when the agent dies.

What was asked is done by the engine whether or not the agent lives to hear of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from phalanx_agent.core.recipe import ContainerRecipe, Image
from phalanx_agent.docker.port import (
    Broke,
    Conflict,
    ContainerFacts,
    EngineEvent,
    EngineFacts,
    ExecSession,
    Folders,
    Inventory,
    Possessions,
    Reopened,
    Unavailable,
    UnavailableKind,
)
from phalanx_wire.api import LogLine
from phalanx_wire.control import Network, SwarmReport
from phalanx_wire.ids import SessionId
from tests.sim.climate import Climate
from tests.sim.dice import Dice
from tests.sim.engine import SimEngine
from tests.sim.process import Process

_T = TypeVar("_T")

LATENCY_S: Final = {"start": (0.05, 1.0), "remove": (0.02, 0.5), "create_container": (0.01, 0.3)}
USUAL_S: Final = (0.001, 0.02)
TIMEOUT_S: Final = 10.0


@dataclass
class Service:
    """What one engine's answers depend on.

    Attributes:
        troubled: faults are drawn at all; off once the world is healed.
        tasks: the engine's own, so that it finishes what a dead agent has asked.
    """

    engine: SimEngine
    climate: Climate
    dice: Dice
    tasks: asyncio.TaskGroup
    troubled: bool = True

    def fault(self) -> str:
        """Draw what happens to a call: nothing, `refused`, `unheard` or `unanswered`."""
        if not self.troubled or not self.dice.chance(self.climate.engine_fault):
            return ""
        return self.dice.pick(("refused", "unheard", "unanswered"))

    def latency_s(self, name: str) -> float:
        """Draw how long the engine works on a call."""
        if name == "pull":
            return self.dice.skewed(0.5, max(self.climate.slow_s, 1.0))
        return self.dice.skewed(*LATENCY_S.get(name, USUAL_S))

    async def serve(
        self, name: str, act: Callable[[], Awaitable[_T]], answer: asyncio.Future[_T]
    ) -> None:
        """Do what was asked, and answer if somebody still listens."""
        if self.engine.down:
            return _refuse(answer, name, "not_sent", "Cannot connect to the engine.")
        fault = self.fault()
        await asyncio.sleep(self.latency_s(name))
        if answer.cancelled() and name == "pull":
            return None
        if self.engine.down:
            return _refuse(answer, name, "unknown", "The connection broke.")
        if fault == "refused":
            return _refuse(answer, name, "answered", "Server error.")
        if fault == "unheard":
            await asyncio.sleep(TIMEOUT_S)
            return _refuse(answer, name, "unknown", "It did not answer.")
        try:
            result = await act()
        except (Unavailable, Conflict) as error:
            if not answer.done():
                answer.set_exception(error)
            return None
        if fault == "unanswered":
            await asyncio.sleep(TIMEOUT_S)
            return _refuse(answer, name, "unknown", "It did not answer.")
        if not answer.done():
            answer.set_result(result)
        return None


def _refuse(answer: asyncio.Future[_T], name: str, kind: UnavailableKind, hint: str) -> None:
    status = 500 if kind == "answered" else 0
    if not answer.done():
        answer.set_exception(Unavailable("the engine", name, hint, kind=kind, status=status))


class EngineLine:
    """The `Docker` of one agent's process."""

    def __init__(self, process: Process, service: Service) -> None:
        self._process = process
        self._service = service
        self._engine = service.engine

    async def _ask(self, name: str, act: Callable[[], Awaitable[_T]]) -> _T:
        self._process.point(f"engine.{name}.before")
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._service.tasks.create_task(self._service.serve(name, act, answer))
        result = await answer
        self._process.point(f"engine.{name}.after")
        return result

    async def info(self) -> EngineFacts:
        return await self._ask("info", self._engine.info)

    async def inventory(self) -> Inventory:
        return await self._ask("inventory", self._engine.inventory)

    async def image(self, ref: str) -> Image | None:
        return await self._ask("image", lambda: self._engine.image(ref))

    async def pull(self, ref: str, progress: Callable[[str], None]) -> Image:
        return await self._ask("pull", lambda: self._engine.pull(ref, progress))

    async def user_files(self, image_id: str) -> tuple[str, str]:
        return await self._ask("info", lambda: self._engine.user_files(image_id))

    async def create_network(self, session: SessionId, attempt: int, network: Network) -> str:
        return await self._ask(
            "create_network", lambda: self._engine.create_network(session, attempt, network)
        )

    async def remove_network(self, network_id: str) -> None:
        await self._ask("remove_network", lambda: self._engine.remove_network(network_id))

    async def ensure_egress(self, subnet: str) -> str:
        return await self._ask("ensure_egress", lambda: self._engine.ensure_egress(subnet))

    async def create_container(self, recipe: ContainerRecipe) -> str:
        return await self._ask("create_container", lambda: self._engine.create_container(recipe))

    async def start(self, container_id: str) -> None:
        await self._ask("start", lambda: self._engine.start(container_id))

    async def connect(self, container_id: str) -> None:
        await self._ask("connect", lambda: self._engine.connect(container_id))

    async def inspect(self, container_id: str) -> ContainerFacts | None:
        return await self._ask("inspect", lambda: self._engine.inspect(container_id))

    async def kill(self, container_id: str, signal: str) -> None:
        await self._ask("kill", lambda: self._engine.kill(container_id, signal))

    async def remove(self, container_id: str) -> None:
        await self._ask("remove", lambda: self._engine.remove(container_id))

    async def events(self) -> AsyncIterator[EngineEvent | Broke | Reopened]:
        async for event in self._engine.events():
            self._process.point("engine.events")
            yield event

    async def write_archive(
        self, container_id: str, path: str, chunks: AsyncIterator[bytes]
    ) -> None:
        await self._ask(
            "write_archive", lambda: self._engine.write_archive(container_id, path, chunks)
        )

    async def swarm(self) -> SwarmReport:
        return await self._ask("swarm", self._engine.swarm)

    async def swarm_init(self, address: str) -> None:
        await self._ask("swarm_init", lambda: self._engine.swarm_init(address))

    async def swarm_join(self, address: str, remotes: tuple[str, ...], token: str) -> None:
        await self._ask("swarm_join", lambda: self._engine.swarm_join(address, remotes, token))

    async def swarm_leave(self, entered_at: float) -> None:
        await self._ask("swarm_leave", lambda: self._engine.swarm_leave(entered_at))

    async def clear(self) -> None:
        await self._ask("clear", self._engine.clear)

    @property
    def root(self) -> str:
        return ""  # its containers have nothing on a host

    def folders(self) -> Folders:
        return Folders()  # its containers have nothing on a host

    async def possessions(self, *, sandboxes: bool) -> Possessions:  # noqa: ARG002 - as the port
        return Possessions()

    async def swarm_canary(self, *, ours: bool) -> None:
        await self._ask("swarm_canary", lambda: self._engine.swarm_canary(ours=ours))

    # ---------------------------------------------------------------- users' bytes

    def logs(
        self,
        container_id: str,
        *,
        session: str = "",
        since_ns: int = 0,
        tail: int = -1,
        follow: bool = False,
    ) -> AsyncIterator[Iterator[LogLine]]:
        return self._engine.logs(
            container_id, session=session, since_ns=since_ns, tail=tail, follow=follow
        )

    async def exec(
        self,
        container_id: str,
        command: tuple[str, ...],
        *,
        tty: bool,
        stdin: bool,
        env: Mapping[str, str] | None = None,
        begins: Callable[[str], None] | None = None,
    ) -> ExecSession:
        return await self._engine.exec(
            container_id, command, tty=tty, stdin=stdin, env=env, begins=begins
        )

    async def end_exec(self, exec_id: str) -> None:
        await self._ask("end_exec", lambda: self._engine.end_exec(exec_id))

    def read_archive(self, container_id: str, path: str) -> AsyncIterator[bytes]:
        return self._engine.read_archive(container_id, path)
