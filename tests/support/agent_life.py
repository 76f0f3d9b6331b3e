"""An agent's loops on a host of doubles, with builders for what a manager would say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from phalanx_agent.loops.board import Board
from phalanx_agent.loops.converge import Fleet
from phalanx_agent.loops.watch import Watch
from phalanx_wire.control import (
    Assignment,
    Beat,
    Gang,
    Goals,
    KernelReport,
    Member,
    Network,
    NetworkGoal,
    Observed,
)
from phalanx_wire.ids import AgentId, KernelId, SessionId, kernel_id
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.slots import Slots
from tests.support.fake_host import FakeHost

HERE = AgentId("host1")
SESSION = SessionId("aaaaaaaaaaaa")
MAIN1 = kernel_id(SESSION, 1, 0)
SUB1 = kernel_id(SESSION, 1, 1)
_NAMES = ("main1", "sub1", "sub2")
_TURNS = 2000


def gang(size: int = 1, **changes: Any) -> Gang:
    """A gang whose members all have their keys."""
    network = Network("phx-aaaaaaaaaaaa-1", "bridge", "10.213.0.0/26", HERE)
    members = tuple(
        Member(rank, _NAMES[rank], HERE, f"10.213.0.{62 - rank}", f"hk{rank}", f"uk{rank}")
        for rank in range(size)
    )
    return msgspec.structs.replace(
        Gang(SESSION, "demo", 1, network, egress=True, members=members), **changes
    )


def assignment(goal: KernelState, rank: int = 0, **changes: Any) -> Assignment:
    """A kernel of one core and 1 GiB."""
    return msgspec.structs.replace(
        Assignment(
            kernel=kernel_id(SESSION, 1, rank),
            goal=goal,
            host_name=_NAMES[rank],
            image="alpine",
            command=("true",),
            idle=False,
            env={"RANK": str(rank)},
            workdir="",
            user="",
            mounts=(),
            slots=Slots(1000, 1 << 30, 0, 4096),
            shm_bytes=1 << 29,
            gpus=(),
            upload="",
            grace_s=10.0,
            master_port=0,
        ),
        **changes,
    )


def goals(*kernels: Assignment, of: Gang | None = None, network: bool = True) -> Goals:
    """All that host1 shall have: kernels of one gang, and its network."""
    whole = of or gang(max((int(kernel.kernel[-1]) for kernel in kernels), default=0) + 1)
    return Goals(
        revision=1,
        gangs=(whole,),
        kernels=kernels,
        networks=(NetworkGoal(SESSION, 1, whole.network, present=network),),
    )


class Life:
    """One process of an agent. What it says to its manager is in `said`."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.said: list[Observed] = []
        self.beats: list[Beat] = []
        self.workshop = host.workshop()
        self.board = Board("boot", self._say)
        self.fleet = Fleet(HERE, self.workshop, self.board)
        self.watch = Watch(self.workshop, self.fleet, self.board)

    def _say(self, message: Observed | Beat) -> bool:
        if isinstance(message, Observed):
            self.said.append(message)
        else:
            self.beats.append(message)
        return True

    async def until(self, true: Callable[[], object]) -> None:
        """Let the loop turn until something is true."""
        for _ in range(_TURNS):
            if true():
                return
            await asyncio.sleep(0)
        raise AssertionError(f"it never became true; {self.states()}")

    async def settle(self) -> None:
        """Let the loop turn until nobody has anything to do."""
        for _ in range(200):
            await asyncio.sleep(0)

    async def aim(self, *kernels: Assignment, of: Gang | None = None) -> None:
        """Tell what shall be, and wait until all that can be done is done."""
        self.fleet.take(goals(*kernels, of=of))
        await self.settle()

    async def reach(self, goal: KernelState, **changes: Any) -> None:
        """Bring main1 to a barrier."""
        await self.aim(assignment(goal, **changes))
        await self.until(lambda: self.state() == goal)

    async def pass_time(self, seconds: float) -> None:
        """Let time go by for all keepers."""
        self.host.skipped += seconds
        for kernel in (MAIN1, SUB1):
            keeper = self.fleet.keeper(kernel)
            if keeper is not None:
                keeper.look_again()
        await self.settle()

    def report(self, kernel: KernelId = MAIN1) -> KernelReport:
        """What was last told of a kernel."""
        return next(report for report in self.said[-1].kernels if report.kernel == kernel)

    def state(self, kernel: KernelId = MAIN1) -> KernelState | None:
        """The state last told of a kernel; None when nothing was."""
        return self.states().get(kernel)

    def states(self) -> dict[KernelId, KernelState]:
        """The states last told."""
        if not self.said:
            return {}
        return {report.kernel: report.state for report in self.said[-1].kernels}

    def history(self, kernel: KernelId = MAIN1) -> list[KernelState]:
        """All states told of a kernel, in order, each once."""
        told = [
            report.state for said in self.said for report in said.kernels if report.kernel == kernel
        ]
        return list(dict.fromkeys(told))


@asynccontextmanager
async def living(host: FakeHost) -> AsyncIterator[Life]:
    """An agent that is killed at the end of the block; its host stays."""
    life = Life(host)
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(life.fleet.run()),
            tasks.create_task(life.watch.events()),
            tasks.create_task(life.watch.listings()),
        ]
        await life.settle()
        try:
            yield life
        finally:
            for task in running:
                task.cancel()
