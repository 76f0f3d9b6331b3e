"""All kernels of this host: one keeper each, all in parallel, woken and never polled."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Never

import structlog

from phalanx_agent.docker.port import ContainerFacts, EngineEvent, Inventory
from phalanx_agent.loops.board import Board
from phalanx_agent.loops.case import Aim
from phalanx_agent.loops.keeper import Keeper
from phalanx_agent.loops.lease import Lease
from phalanx_agent.loops.networks import Networks
from phalanx_agent.loops.supervise import for_ever
from phalanx_agent.loops.workshop import Workshop
from phalanx_wire.control import Assignment, Gang, Goals
from phalanx_wire.ids import AgentId, KernelId, split_kernel_id

_LOG = structlog.get_logger()


@dataclass(slots=True)
class _Kept:
    keeper: Keeper
    task: asyncio.Task[Never]


class Fleet:
    """The keepers. They begin when the engine has been listed once, so that each knows what an
    earlier process of this agent has left; until then goals wait.
    """

    def __init__(self, name: AgentId, workshop: Workshop, board: Board) -> None:
        self._name = name
        self._workshop = workshop
        self._board = board
        self._kept: dict[KernelId, _Kept] = {}
        self._goals: Goals | None = None
        self._containers: dict[KernelId, ContainerFacts] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self.networks = Networks(
            workshop.docker, board.network, board.forget_network, self._network_made, board.warn
        )

    async def run(self) -> None:
        """Hold the tasks of all keepers, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._apply()
            await asyncio.Event().wait()

    @property
    def goals(self) -> Goals | None:
        """The newest goals; None before any."""
        return self._goals

    def keeper(self, kernel: KernelId) -> Keeper | None:
        """The keeper of a kernel that the goals name."""
        kept = self._kept.get(kernel)
        return kept.keeper if kept else None

    def claims(self, kernel: KernelId) -> bool:
        """Whether the goals name a kernel."""
        return kernel in self._kept

    @property
    def lease(self) -> Lease:
        """For how long all this may go on."""
        return self._workshop.lease

    # ---------------------------------------------------------------- what wakes it

    def take(self, goals: Goals) -> None:
        """Take what shall be."""
        self._goals = goals
        self._apply()

    def renewed(self) -> None:
        """The manager has answered."""
        for kept in self._kept.values():
            kept.keeper.renewed()

    def listed(self, inventory: Inventory) -> None:
        """Take what is; a keeper that knows otherwise looks for itself, for a list is old."""
        containers = {facts.kernel: facts for facts in inventory.containers}
        first, self._containers = self._containers is None, containers
        if first:
            self._apply()
            return
        for kernel, kept in self._kept.items():
            kept.keeper.compare(containers.get(kernel))

    def happened(self, event: EngineEvent) -> None:
        """Something happened to a container that says it is a kernel's."""
        kept = self._kept.get(event.kernel)
        if kept is None or kept.keeper.case.container_id not in ("", event.container_id):
            return
        match event.action:
            case "kill":
                kept.keeper.killed()
            case "create":
                pass  # nobody but its keeper makes it
            case _:
                kept.keeper.look_again()

    # ---------------------------------------------------------------- keepers come and go

    def _network_made(self) -> None:
        self._apply()

    def _apply(self) -> None:
        if self._goals is None or self._containers is None or self._tasks is None:
            return
        goals = self._goals
        self.networks.take(goals.networks, self._tasks)
        gangs = {(gang.session, gang.attempt): gang for gang in goals.gangs}
        for assignment in goals.kernels:
            session, attempt, _ = split_kernel_id(assignment.kernel)
            gang = gangs.get((session, attempt))
            if gang is None:
                _LOG.error("goals.no-gang", kernel=assignment.kernel)
                continue
            self._aim(assignment, gang, self._tasks)
        for kernel in self._kept.keys() - {assignment.kernel for assignment in goals.kernels}:
            self._kept.pop(kernel).task.cancel()
            self._containers.pop(kernel, None)
            self._board.forget_kernel(kernel)
        self._board.answers(goals.revision)

    def _aim(self, assignment: Assignment, gang: Gang, tasks: asyncio.TaskGroup) -> None:
        network_id = gang.network.engine_id
        if gang.network.owner == self._name:
            network_id = self.networks.engine_id(gang.network.name) or network_id
        aim = Aim(assignment, gang, network_id)
        kept = self._kept.get(assignment.kernel)
        if kept is not None:
            kept.keeper.aim_at(aim)
            return
        containers = self._containers or {}
        keeper = Keeper(aim, self._workshop, self._board.kernel, containers.get(assignment.kernel))
        task = tasks.create_task(for_ever(f"kernel {assignment.kernel}", keeper.run))
        self._kept[assignment.kernel] = _Kept(keeper, task)
