"""A host: its engine and files outlive its agents; what an agent's process holds does not."""

# ruff: noqa: ARG002 - a double takes what its port takes
from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from phalanx_agent.core.recipe import Account, ContainerRecipe
from phalanx_agent.core.refused import Refused
from phalanx_agent.core.seen import Noted
from phalanx_agent.docker.port import ContainerFacts
from phalanx_agent.host.scratch import PublicKeys
from phalanx_runner.messages import Event
from phalanx_wire.api import LogLine
from phalanx_wire.control import Gpu, HostNetwork
from phalanx_wire.ids import AgentId, KernelId
from phalanx_wire.slots import Slots
from tests.sim.climate import Climate
from tests.sim.dice import Dice
from tests.sim.engine import SimEngine, Swarm, Witness
from tests.sim.process import Process
from tests.sim.runner import Door, Runner
from tests.support.fake_host import FakeScratch

EPOCH_S: Final = 1_800_000_000.0
GIB: Final = 1 << 30
FIRST_PORT: Final = 61_000


@dataclass
class Files:
    """What is on a host's disks and in its memory.

    Attributes:
        made: counts materials, so that each has keys of its own.
        entered_at: when its agent has taken the engine into a swarm.
        left: all was taken away, for good.
    """

    scratch: FakeScratch = field(default_factory=FakeScratch)
    keys: dict[KernelId, PublicKeys] = field(default_factory=dict)
    logs: set[KernelId] = field(default_factory=set)
    made: int = 0
    entered_at: float | None = None
    left: bool = False


class SimHost:
    """One machine.

    Attributes:
        skew_s: how far its wall clock is off.
        disk_fault: chance that a write fails; 0 once the world is healed.
        luck: the runners' bad luck; 0 once the world is healed.
        reachable, released, signalled: what runners ask of the world beyond their host.
        foreign: ports of the host that somebody else listens on.
        dismissed: its agent has left it for good, and is not started again.
        doomed: points at which its agent dies when it next passes them.
    """

    def __init__(
        self, name: AgentId, gpus: int, climate: Climate, swarm: Swarm, witness: Witness, seed: int
    ) -> None:
        self.name = name
        self.dice = Dice(seed, f"host {name}")
        self.skew_s = self.dice.between(-climate.skew_s, climate.skew_s)
        self.disk_fault = climate.disk_fault
        self.luck = climate.runner_fault
        self.files = Files()
        self.doors: dict[KernelId, Door] = {}
        self.runners: dict[KernelId, Runner] = {}
        self.boots = 1
        self.lives = 0
        self.dismissed = False
        self.doomed: set[str] = set()
        self.capacity = Slots(4_000, 16 * GIB, gpus, 100_000)
        self.gpus = tuple(Gpu(f"{name}-gpu{number}", "h200") for number in range(gpus))
        self.address = f"192.0.2.{10 + int(name.removeprefix('host'))}"
        self.engine = SimEngine(name, swarm, witness, self.dice, self.wall)
        self.engine.launch = self._launch
        self.reachable: Callable[[KernelId], bool] = lambda _kernel: True
        self.released: Callable[[KernelId], None] = lambda _kernel: None
        self.signalled: Callable[[KernelId, int], None] = lambda _kernel, _number: None
        last = FIRST_PORT + climate.host_ports - 1
        self.network = HostNetwork("eth0", FIRST_PORT, last) if climate.host_ports else None
        self.foreign = {FIRST_PORT + 1} if climate.runner_fault else set[int]()

    def wall(self) -> float:
        """Tell Unix seconds, as this host sees them."""
        return EPOCH_S + asyncio.get_running_loop().time() + self.skew_s

    def _launch(self, facts: ContainerFacts, recipe: ContainerRecipe) -> Runner:
        runner = Runner(facts, recipe, self, self.dice)
        self.runners[facts.kernel] = runner
        return runner

    def door(self, kernel: KernelId) -> Door | None:
        return self.doors.get(kernel)

    def lease(self, kernel: KernelId) -> float | None:
        return self.files.scratch.lease(kernel)

    def finish(self, container_id: str, code: int) -> None:
        """A runner ends; an engine that is down notes it when it is back."""
        self.engine.finish(container_id, code)

    def check_ports(self, ports: tuple[int, ...]) -> None:
        """Look for others on ports that a container shall have.

        Raises:
            Refused: one is taken.
        """
        for port in ports:
            if port in self.foreign:
                raise Refused(f"Port {port} of the host is taken by nc (pid 7).")

    def forget_memory(self) -> None:
        """The machine restarts: material in memory is gone, the disk is not."""
        self.boots += 1
        self.files.scratch.texts.clear()
        self.files.scratch.leases.clear()
        self.files.scratch.notes.clear()
        self.files.keys.clear()

    def maybe_full(self, path: str) -> None:
        """Fail as a full disk does, now and then.

        Raises:
            OSError: it is full.
        """
        if self.dice.chance(self.disk_fault):
            raise OSError(errno.ENOSPC, "No space left on device", path)


class SimScratch:
    """The `Scratch` of one agent's process."""

    def __init__(self, process: Process, host: SimHost) -> None:
        self._process = process
        self._host = host
        self._files = host.files

    def folder(self, kernel: KernelId) -> Path:
        return self._files.scratch.folder(kernel)

    def public_keys(self, kernel: KernelId) -> PublicKeys | None:
        return self._files.keys.get(kernel) if kernel in self._files.scratch.texts else None

    def make(self, kernel: KernelId, texts: Mapping[str, str], account: Account) -> PublicKeys:
        self._process.point("scratch.make.before")
        self._host.maybe_full(kernel)
        self._files.scratch.make(kernel, texts, account)
        self._files.made += 1
        number = self._files.made
        keys = PublicKeys(f"ssh-ed25519 H{number}{kernel}", f"ssh-ed25519 U{number}{kernel}")
        self._files.keys[kernel] = keys
        self._process.point("scratch.make.after")
        return keys

    def put(self, kernel: KernelId, texts: Mapping[str, str]) -> None:
        self._process.point("scratch.put.before")
        self._host.maybe_full(kernel)
        self._files.scratch.put(kernel, texts)
        self._process.point("scratch.put.after")

    def text(self, kernel: KernelId, name: str) -> str:
        return self._files.scratch.text(kernel, name)

    def write_lease(self, kernel: KernelId, until_s: float) -> None:
        self._process.point("scratch.write_lease.before")
        self._host.maybe_full(kernel)
        self._files.scratch.write_lease(kernel, until_s)
        self._process.point("scratch.write_lease.after")

    def lease(self, kernel: KernelId) -> float | None:
        return self._files.scratch.lease(kernel)

    def note(self, kernel: KernelId, noted: Noted) -> None:
        self._process.point("scratch.note.before")
        self._host.maybe_full(kernel)
        self._files.scratch.note(kernel, noted)
        self._process.point("scratch.note.after")

    def noted(self, kernel: KernelId) -> Noted:
        return self._files.scratch.noted(kernel)

    def begun(self, kernel: KernelId) -> str | None:
        return self._files.scratch.begun(kernel)

    def mark(self, kernel: KernelId, container_id: str) -> None:
        self._process.point("scratch.mark.before")
        self._host.maybe_full(kernel)
        self._files.scratch.mark(kernel, container_id)
        self._process.point("scratch.mark.after")

    def clear(self, kernel: KernelId) -> None:
        self._process.point("scratch.clear.before")
        self._files.keys.pop(kernel, None)
        self._files.scratch.texts.pop(kernel, None)
        self._process.point("scratch.clear.inside")
        self._files.scratch.clear(kernel)
        self._process.point("scratch.clear.after")

    def kernels(self) -> frozenset[KernelId]:
        return self._files.scratch.kernels()


class SimLogs:
    """The `LogStore` of one agent's process."""

    def __init__(self, process: Process, host: SimHost) -> None:
        self._process = process
        self._host = host

    async def keep(self, kernel: KernelId, container_id: str) -> None:
        self._process.point("logs.keep.before")
        await asyncio.sleep(self._host.dice.skewed(0.001, 0.1))
        self._host.maybe_full(kernel)
        self._host.files.logs.add(kernel)
        self._process.point("logs.keep.after")

    def has(self, kernel: KernelId) -> bool:
        return kernel in self._host.files.logs

    def lines(
        self, kernel: KernelId, *, since_ns: int = 0, tail: int = -1
    ) -> Iterator[Iterator[LogLine]]:
        yield from ()


class SimUploads:
    """The `Uploads` of one agent's process: every archive is there."""

    def __init__(self, process: Process, host: SimHost) -> None:
        self._process = process
        self._host = host

    async def fetch(self, digest: str) -> None:
        self._process.point("uploads.fetch.before")
        await asyncio.sleep(self._host.dice.skewed(0.01, 2.0))
        self._process.point("uploads.fetch.after")

    async def chunks(self, digest: str, account: Account) -> AsyncIterator[bytes]:
        yield digest.encode()


class Doors:
    """Where one agent's process listens for runners."""

    def __init__(self, process: Process, host: SimHost) -> None:
        self._process = process
        self._host = host

    @asynccontextmanager
    async def listen(
        self, folder: Path, pid: Callable[[], int | None], hear: Callable[[Event], None]
    ) -> AsyncIterator[Door]:
        kernel = KernelId(folder.name)
        door = Door(self._process, pid, hear)
        self._host.doors[kernel] = door
        runner = self._host.runners.get(kernel)
        if runner is not None and runner.alive:
            loop = asyncio.get_running_loop()
            loop.call_later(self._host.dice.skewed(0.005, 0.5), runner.look)
        try:
            yield door
        finally:
            door.close()
            if self._host.doors.get(kernel) is door:
                del self._host.doors[kernel]
