"""The agent's side of the truth, told to the manager as one whole at every change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from phalanx_wire.control import (
    Beat,
    Engine,
    Gpu,
    HostNetwork,
    KernelReport,
    NetworkReport,
    Observed,
    Stray,
    SwarmReport,
)
from phalanx_wire.ids import KernelId
from phalanx_wire.slots import Slots


@dataclass(frozen=True, slots=True)
class Routes:
    """The host's own addresses, the networks (CIDR) that it routes to, and what containers get of
    its own network; None where they may not be there.
    """

    addresses: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    host_network: HostNetwork | None = None


class Board:
    """Everything that goes into `Observed`. Changes of one turn of the event loop leave together,
    at its end.
    """

    def __init__(self, boot_id: str, say: Callable[[Observed | Beat], bool]) -> None:
        self._boot_id = boot_id
        self._say = say
        self._revision = -1
        self._kernels: dict[KernelId, KernelReport] = {}
        self._networks: dict[str, NetworkReport] = {}
        self._capacity = Slots()
        self._address = ""
        self._gpus: tuple[Gpu, ...] = ()
        self._routes = Routes()
        self._engine = Engine(problem="The container engine has not been asked yet.")
        self._hindered: dict[str, str] = {}
        self._swarm = SwarmReport(state="pending")  # until the engine has been asked
        self._strays: tuple[Stray, ...] = ()
        self._warnings: dict[str, tuple[str, ...]] = {}
        self._leaving = False
        self._left = False
        self._said = 0

    def observed(self) -> Observed:
        """Say all."""
        warnings = [text for texts in self._warnings.values() for text in texts]
        return Observed(
            boot_id=self._boot_id,
            revision=self._revision,
            capacity=self._capacity,
            address=self._address,
            engine=self._told_engine(),
            gpus=self._gpus,
            kernels=tuple(self._kernels.values()),
            networks=tuple(self._networks.values()),
            strays=self._strays,
            swarm=self._swarm,
            addresses=self._routes.addresses,
            subnets=self._routes.subnets,
            host_network=self._routes.host_network,
            warnings=tuple(dict.fromkeys(warnings)),
            left=self._left,
            number=self._said,
        )

    def _told_engine(self) -> Engine:
        problems = filter(None, (self._engine.problem, *self._hindered.values()))
        return Engine(self._engine.version, self._engine.api, " ".join(problems))

    def leave_now(self) -> None:
        """Tell the manager; if it is away it will be told when it is back."""
        self._leaving = False
        self._said += 1
        self._say(self.observed())

    def beat(self, beat: Beat) -> None:
        """Tell the manager that this agent lives; while it is away nobody hears."""
        self._say(beat)

    def changed(self) -> None:
        """Tell the manager at the end of this turn."""
        if not self._leaving:
            self._leaving = True
            asyncio.get_running_loop().call_soon(self.leave_now)

    # ---------------------------------------------------------------- what is told

    def answers(self, revision: int) -> None:
        """From now on this is an answer to those goals."""
        if revision != self._revision:
            self._revision = revision
            self.changed()

    def kernel(self, report: KernelReport) -> None:
        """One kernel has changed."""
        self._kernels[report.kernel] = report
        self.changed()

    def forget_kernel(self, kernel: KernelId) -> None:
        """The manager has heard its end."""
        if self._kernels.pop(kernel, None) is not None:
            self.changed()

    def network(self, report: NetworkReport) -> None:
        """One network has changed."""
        if self._networks.get(report.name) != report:
            self._networks[report.name] = report
            self.changed()

    def forget_network(self, name: str) -> None:
        """The manager has heard its end."""
        if self._networks.pop(name, None) is not None:
            self.changed()

    def engine(self, engine: Engine) -> None:
        """The engine answers, or no longer."""
        if engine != self._engine:
            self._engine = engine
            self.changed()

    def hinder(self, source: str, why: str) -> None:
        """No work can be taken although the engine is well, by who found it; empty when it can."""
        if why != self._hindered.get(source, ""):
            self._hindered[source] = why
            self.changed()

    def swarm(self, swarm: SwarmReport) -> None:
        """The engine's part in the swarm."""
        if swarm != self._swarm:
            self._swarm = swarm
            self.changed()

    def host(self, capacity: Slots, address: str, gpus: tuple[Gpu, ...], routes: Routes) -> None:
        """What the host has, and how it is reached."""
        told = (self._capacity, self._address, self._gpus, self._routes)
        if (capacity, address, gpus, routes) != told:
            self._capacity, self._address = capacity, address
            self._gpus, self._routes = gpus, routes
            self.changed()

    def strays(self, strays: tuple[Stray, ...]) -> None:
        """What nobody claims."""
        if strays != self._strays:
            self._strays = strays
            self.changed()

    def left(self) -> None:
        """Nothing of ours is on this host any more."""
        self._left = True
        self.changed()

    def warn(self, source: str, texts: tuple[str, ...]) -> None:
        """What an operator should know, by who found it; replaces what that one said before."""
        if texts != self._warnings.get(source, ()):
            self._warnings[source] = texts
            self.changed()
