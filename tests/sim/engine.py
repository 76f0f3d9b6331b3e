"""A host's container engine and the containers in it; both outlive agents, but not each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import msgspec

from phalanx_agent.core.recipe import ContainerRecipe, Image
from phalanx_agent.docker.port import (
    Broke,
    ContainerFacts,
    EngineEvent,
    Inventory,
    NetworkFacts,
    Reopened,
    Unavailable,
)
from phalanx_wire import names
from phalanx_wire.control import Network, SwarmReport
from phalanx_wire.ids import AgentId, SessionId
from tests.sim.dice import Dice
from tests.sim.virtual_loop import TICK_S
from tests.support.fake_engine import ALPINE, FakeEngine, refusal

Event = EngineEvent | Broke | Reopened
BIG = "big"
MISSING = "missing"


class Program(Protocol):
    """What runs in a container, from its start to its end."""

    def signalled(self, signal: str) -> None:
        """The engine has sent its first process a signal."""

    def dies(self) -> None:
        """Everything in the container is killed."""


class Witness(Protocol):
    """Sees what really happens on the hosts, whatever anybody says about it."""

    def created(self, host: AgentId, facts: ContainerFacts, recipe: ContainerRecipe) -> None:
        """A container was made."""

    def started(self, host: AgentId, facts: ContainerFacts, recipe: ContainerRecipe) -> None:
        """A container's first process runs."""

    def ended(self, host: AgentId, facts: ContainerFacts) -> None:
        """It runs no more."""

    def died(self, facts: ContainerFacts) -> None:
        """It runs no more, and its engine has not seen it."""

    def removed(self, host: AgentId, facts: ContainerFacts) -> None:
        """The container is gone."""

    def meddled(self, host: AgentId, facts: ContainerFacts) -> None:
        """Somebody is about to remove a container by hand."""

    def network_made(self, host: AgentId, facts: NetworkFacts) -> None:
        """A network was made."""

    def swarm_made(self, host: AgentId) -> None:
        """An engine has begun a swarm."""

    def swarm_left(self, host: AgentId, *, heard: bool) -> None:
        """An engine has left its swarm; heard: others were there to tell, and one still is."""


FAREWELL_S: Final = 1.0
"""How long an engine that leaves its swarm tries to tell the others."""


@dataclass(eq=False)
class Swarm:
    """What the engines of a cluster share, once they are in a swarm.

    Attributes:
        fresh: numbers for networks and swarms, none twice in a world.
    """

    fresh: Iterator[int]
    networks: dict[str, NetworkFacts] = field(default_factory=dict)
    engines: list[SimEngine] = field(default_factory=list)
    name: str = ""


class SimEngine(FakeEngine):
    """One host's engine."""

    def __init__(
        self, host: AgentId, swarm: Swarm, witness: Witness, dice: Dice, wall: Callable[[], float]
    ) -> None:
        super().__init__()
        self.host = host
        self._up = asyncio.Event()
        self._leaving = asyncio.Lock()
        self._up.set()
        self.booted_at = wall()
        self.programs: dict[str, Program] = {}
        self.launch: Callable[[ContainerFacts, ContainerRecipe], Program] | None = None
        self.poisoned = False
        self.images = {"alpine": ALPINE}
        self.registry = {BIG: Image("sha256:" + "b" * 64, command=("work", "1", "0"))}
        self.shared = swarm
        self._witness = witness
        self._dice = dice
        self._wall = wall
        self._listeners: list[asyncio.Queue[Event]] = []
        self._last_event_at = 0.0
        swarm.engines.append(self)

    # ---------------------------------------------------------------- its own life

    @property
    def down(self) -> bool:
        """It does not answer; containers may run on."""
        return not self._up.is_set()

    def stop(self, *, politely: bool) -> None:
        """Go away. Politely, containers are ended first; else they run until it is back."""
        if self.down:
            return
        if politely:
            for facts in self._running():
                self._ring(facts, "kill")
                self.finish(facts.id, self._dice.pick((143, 137, 0)))
        self._up.clear()
        for listener in self._listeners:
            listener.put_nowait(Broke())

    def power_off(self) -> None:
        """Go away with all containers; the engine learns of their end when it is back."""
        self.stop(politely=False)
        for program in self.programs.values():
            program.dies()
        for facts in self._running():
            self._witness.died(facts)

    def boot(self) -> None:
        """Come back. What has run without its engine is found, and ended."""
        if not self.down:
            return
        self._up.set()
        self.booted_at = self._wall()
        for facts in self._running():
            self.finish(facts.id, self._dice.pick((137, 143, 255)))

    def _running(self) -> list[ContainerFacts]:
        return [facts for facts in self.containers.values() if facts.status == "running"]

    def finish(self, container_id: str, code: int, *, oom: bool = False) -> None:
        """A container's first process is gone, by itself or by force."""
        facts = self.containers.get(container_id)
        if facts is None or facts.status != "running":
            return
        program = self.programs.pop(container_id, None)
        if program is not None:
            program.dies()
        self.end(container_id, code, oom=oom)
        self._witness.ended(self.host, self.containers[container_id])

    # ---------------------------------------------------------------- what differs from the double

    def _now(self) -> float:
        return self._wall()

    def _ring(self, facts: ContainerFacts, action: str) -> None:
        """Events come in order, a little late, to whoever listens now."""
        loop = asyncio.get_running_loop()
        delay_s = self._dice.skewed(0.0005, 0.05)
        self._last_event_at = at = max(self._last_event_at + TICK_S, loop.time() + delay_s)
        event = EngineEvent(facts.id, facts.kernel, action)
        loop.call_at(at, self._deliver, tuple(self._listeners), event)

    def _deliver(self, listeners: tuple[asyncio.Queue[Event], ...], event: EngineEvent) -> None:
        for listener in listeners:
            if not self.down:
                listener.put_nowait(event)

    async def events(self) -> AsyncIterator[Event]:
        while True:
            await self._up.wait()
            await asyncio.sleep(self._dice.skewed(0.01, 1.0))
            queue: asyncio.Queue[Event] = asyncio.Queue()
            self._listeners.append(queue)
            try:
                yield Reopened()
                event: Event = Reopened()
                while not isinstance(event, Broke):
                    event = await queue.get()
                    yield event
            finally:
                self._listeners.remove(queue)

    def _reaches(self, network_id: str) -> bool:
        return network_id in (*self.networks, names.HOST_NETWORK) or (
            self.swarm_report.state == "active" and network_id in self.shared.networks
        )

    async def create_network(self, session: SessionId, attempt: int, network: Network) -> str:
        shared = network.driver == "overlay"
        if shared and not self.swarm_report.control:
            raise refusal(503, "This node is not a swarm manager.")
        room = self.shared.networks if shared else self.networks
        for facts in room.values():
            if facts.name == network.name:
                return facts.id
        made = f"{next(self.shared.fresh):064x}"
        facts = NetworkFacts(made, network.name, session, attempt, network.driver, network.subnet)
        room[made] = facts
        self._witness.network_made(self.host, facts)
        return made

    async def remove_network(self, network_id: str) -> None:
        shared = network_id in self.shared.networks
        for engine in self.shared.engines if shared else [self]:
            for facts in engine.containers.values():
                attached = engine.recipes[facts.id].network_id == network_id
                if attached and facts.status == "running":
                    raise refusal(403, f"network has active endpoints: {facts.name}")
        self.networks.pop(network_id, None)
        self.shared.networks.pop(network_id, None)

    async def create_container(self, recipe: ContainerRecipe) -> str:
        before = set(self.containers)
        made = await super().create_container(recipe)
        if made not in before:
            self._witness.created(self.host, self.containers[made], recipe)
        return made

    async def start(self, container_id: str) -> None:
        facts = self.containers.get(container_id)
        if facts is None:
            raise refusal(404, "no such container")
        was_created = facts.status == "created" and not facts.error
        self.start_error = "OCI runtime create failed" if self.poisoned else ""
        await super().start(container_id)
        if was_created:
            facts = self.containers[container_id]
            recipe = self.recipes[container_id]
            self._witness.started(self.host, facts, recipe)
            assert self.launch is not None
            self.programs[container_id] = self.launch(facts, recipe)

    async def connect(self, container_id: str) -> None:
        if container_id in self.recipes:
            await super().connect(container_id)

    async def kill(self, container_id: str, signal: str) -> None:
        facts = self.containers.get(container_id)
        if facts is None or facts.status != "running":
            return
        self._ring(facts, "kill")
        if signal == "SIGKILL":
            self.finish(container_id, 137)
        elif container_id in self.programs:
            self.programs[container_id].signalled(signal)

    async def remove(self, container_id: str) -> None:
        self.finish(container_id, 137)
        facts = self.containers.get(container_id)
        if facts is not None:
            self._witness.removed(self.host, facts)
        await super().remove(container_id)

    async def clear(self) -> None:
        for container_id in tuple(self.containers):
            await self.remove(container_id)
        await super().clear()

    def remove_by_hand(self, container_id: str) -> None:
        """Somebody removes a container behind its agent's back."""
        facts = self.containers[container_id]
        self._witness.meddled(self.host, facts)
        self.finish(container_id, 137)
        self.vanish(container_id)

    async def write_archive(
        self, container_id: str, path: str, chunks: AsyncIterator[bytes]
    ) -> None:
        if container_id not in self.containers:
            raise refusal(404, "no such container")
        await super().write_archive(container_id, path, chunks)

    async def inventory(self) -> Inventory:
        found = await super().inventory()
        if not self.swarm_report.control:
            return found
        return replace(found, networks=(*found.networks, *self.shared.networks.values()))

    async def swarm_init(self, address: str) -> None:
        await super().swarm_init(address)
        name = f"swarm-{next(self.shared.fresh)}"
        self.swarm_report = msgspec.structs.replace(
            self.swarm_report, swarm_id=name, node_id=f"node-{self.host}"
        )
        self.shared.name = self.shared.name or name
        self._witness.swarm_made(self.host)

    async def swarm_join(self, address: str, remotes: tuple[str, ...], token: str) -> None:
        hosts = {
            f"{engine.swarm_report.address}:2377"
            for engine in self.shared.engines
            if engine.swarm_report.control and not engine.down
        }
        if not hosts & set(remotes):
            raise Unavailable("swarm", "joining it", "no manager answers", kind="unknown")
        control = token == "M"
        self.swarm_report = SwarmReport(
            "active",
            self.shared.name if control else "",
            f"node-{self.host}",
            control=control,
            address=address,
            worker_token="W" if control else "",
            manager_token="M" if control else "",
        )

    async def swarm_leave(self, entered_at: float) -> None:
        async with self._leaving:
            if self.swarm_report.state != "active":
                return
            if not all(peer.down for peer in self._peers()):
                await asyncio.sleep(FAREWELL_S)
                stay = not all(peer._leaving.locked() for peer in self._peers())
                self._witness.swarm_left(self.host, heard=stay)
            await super().swarm_leave(entered_at)
            if all(engine.swarm_report.state == "inactive" for engine in self.shared.engines):
                self.shared.networks.clear()
                self.shared.name = ""

    def _peers(self) -> list[SimEngine]:
        """The others in its swarm."""
        others = (engine for engine in self.shared.engines if engine is not self)
        return [engine for engine in others if engine.swarm_report.state == "active"]
