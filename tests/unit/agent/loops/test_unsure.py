"""An engine that does not answer has neither done nor not done what it was asked."""

from __future__ import annotations

import asyncio
from collections import deque

from phalanx_agent.core.recipe import ContainerRecipe
from phalanx_agent.docker.port import Unavailable
from phalanx_agent.loops.swarm import SwarmMember
from phalanx_wire.control import SwarmGoal, SwarmReport
from phalanx_wire.lifecycle import KernelState as S
from tests.support.agent_life import MAIN1, assignment, living
from tests.support.fake_engine import FakeEngine, refusal
from tests.support.fake_host import FakeHost


class Mute(FakeEngine):
    """Makes containers when it is let, and does not say so."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def create_container(self, recipe: ContainerRecipe) -> str:
        await super().create_container(recipe)
        await self.let.wait()
        raise Unavailable("container", "making it", "It did not answer.", kind="unknown")


def mute_host() -> tuple[FakeHost, Mute]:
    host, engine = FakeHost(), Mute()
    host.engine = engine
    return host, engine


async def test_a_container_whose_making_was_not_answered_is_removed_with_its_kernel() -> None:
    host, engine = mute_host()
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING))
        await life.until(lambda: engine.containers)
        await life.aim(assignment(S.REMOVED))
        engine.let.set()
        await life.settle()
        await life.pass_time(1)
        await life.until(lambda: life.state() is S.REMOVED)

        assert {} == engine.containers


async def test_a_container_whose_making_was_not_answered_is_used() -> None:
    host, engine = mute_host()
    engine.let.set()
    async with living(host) as life:
        await life.aim(assignment(S.CREATED))
        await life.pass_time(1)
        await life.until(lambda: life.state() is S.CREATED)

        assert [MAIN1] == [facts.kernel for facts in engine.containers.values()]


async def test_looks_that_are_refused_do_not_make_a_start_a_failed_one(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.CREATED)
        host.engine.failures["inspect"] = deque([refusal(500, "broken")] * 4)
        await life.aim(assignment(S.RUNNING))
        for _ in range(5):
            await life.pass_time(20)
        await life.until(lambda: life.state() is S.RUNNING)

        assert S.EXITED not in life.history()


async def test_an_engine_that_does_not_tell_whether_it_entered_a_swarm_is_told_as_pending() -> None:
    engine = FakeEngine()
    lost = Unavailable("the engine", "beginning a swarm", "It did not answer.", kind="unknown")
    engine.failures["swarm_init"] = deque([lost])
    told: asyncio.Queue[SwarmReport] = asyncio.Queue()
    member = SwarmMember(engine, lambda: "192.0.2.1", told.put_nowait)
    member.take(SwarmGoal("init"))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(member.run())
        await told.get()  # it begins
        first = await told.get()
        member.take(SwarmGoal("init", canary=True))
        await told.get()  # it begins again
        second = await told.get()
        task.cancel()

    assert ["pending", "active"] == [first.state, second.state]
    assert "It did not answer." in first.problem


async def test_an_engine_that_entered_a_swarm_and_cannot_be_asked_is_not_told_as_outside() -> None:
    engine = FakeEngine()
    told: asyncio.Queue[SwarmReport] = asyncio.Queue()
    member = SwarmMember(engine, lambda: "192.0.2.1", told.put_nowait)
    engine.held["swarm_init"] = asyncio.Event()
    member.take(SwarmGoal("init"))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(member.run())
        for _ in range(20):
            await asyncio.sleep(0)
        engine.failures["swarm"] = deque([refusal(500, "broken")])
        engine.held["swarm_init"].set()
        await told.get()  # it begins
        first = await told.get()
        task.cancel()

    assert "pending" == first.state
    assert "broken" in first.problem


async def test_an_engine_is_not_told_as_outside_while_it_may_be_beginning_a_swarm() -> None:
    engine = FakeEngine()
    told: asyncio.Queue[SwarmReport] = asyncio.Queue()
    member = SwarmMember(engine, lambda: "192.0.2.1", told.put_nowait)
    engine.held["swarm_init"] = asyncio.Event()
    engine.failures["swarm_init"] = deque([refusal(500, "broken")])
    member.take(SwarmGoal("init"))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(member.run())
        during = await told.get()
        member.take(None)
        engine.held["swarm_init"].set()
        after = await told.get()
        task.cancel()

    assert ["pending", "inactive"] == [during.state, after.state]


async def test_a_swarm_that_is_not_wanted_any_more_is_not_begun() -> None:
    engine = FakeEngine()
    told: asyncio.Queue[SwarmReport] = asyncio.Queue()
    member = SwarmMember(engine, lambda: "192.0.2.1", told.put_nowait)
    engine.held["swarm"] = asyncio.Event()
    member.take(SwarmGoal("init"))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(member.run())
        for _ in range(20):
            await asyncio.sleep(0)  # it asks how its engine is
        member.take(None)
        engine.held["swarm"].set()
        first, second = await told.get(), await told.get()
        task.cancel()

    assert ["inactive", "inactive"] == [first.state, second.state]
    assert "swarm_init" not in engine.calls
