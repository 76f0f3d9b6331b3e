"""What an engine that died as it started or ended a container has left of it."""

from __future__ import annotations

from collections import deque

from phalanx_agent.docker.port import Unavailable
from phalanx_agent.host.remains import RemainsStay
from phalanx_wire.lifecycle import KernelState as S
from tests.support.agent_life import MAIN1, assignment, living
from tests.support.fake_host import FakeHost

DIED = Unavailable("the engine", "starting it", "The connection broke.", kind="unknown")
STAY = RemainsStay("Process 7 stays.")


async def test_a_container_whose_start_was_broken_off_is_ended_below_its_engine(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        host.engine.failures["start"] = deque([DIED] * 9)
        await life.aim(assignment(S.RUNNING))
        torn = host.engine.of(MAIN1).id
        await life.aim(assignment(S.REMOVED))
        await life.pass_time(60)
        await life.until(lambda: life.state() is S.REMOVED)

    assert [torn] == host.remains_ended


async def test_a_container_that_its_engine_has_started_and_ended_has_left_nothing(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        host.engine.end(host.engine.of(MAIN1).id)
        await life.aim(assignment(S.REMOVED))
        await life.until(lambda: life.state() is S.REMOVED)

    assert [] == host.remains_ended


async def test_a_container_stays_known_until_nothing_is_left_below_its_engine(
    host: FakeHost,
) -> None:
    host.remains_stay = STAY
    async with living(host) as life:
        host.engine.failures["start"] = deque([DIED] * 9)
        await life.aim(assignment(S.RUNNING))
        torn = host.engine.of(MAIN1).id
        await life.aim(assignment(S.REMOVED))
        await life.pass_time(60)
        held = host.engine.of(MAIN1).id, life.report().detail
        host.remains_stay = None
        await life.pass_time(60)
        await life.until(lambda: life.state() is S.REMOVED)

    assert torn == held[0]
    assert "Process 7 stays; it is tried again." in held[1]
    assert [torn] == host.remains_ended


async def test_what_its_engine_has_lost_is_told_as_ended_when_it_has_ended(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        lost = host.engine.of(MAIN1).id
        host.remains_stay = STAY
        await host.engine.remove(lost)
        await life.pass_time(60)
        held = life.state(), life.report().detail
        host.remains_stay = None
        await life.pass_time(60)
        await life.until(lambda: life.state() is S.EXITED)

    assert S.RUNNING is held[0]
    assert "Process 7 stays; it is tried again." in held[1]
    assert [lost] == host.remains_ended


async def test_what_its_engine_has_lost_while_no_agent_looked_is_ended_before_it_is_told(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
    lost = host.engine.of(MAIN1).id
    await host.engine.remove(lost)
    host.remains_stay = STAY
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING))
        await life.pass_time(60)
        held = life.said[-1].kernels
        host.remains_stay = None
        await life.pass_time(60)
        await life.until(lambda: life.state() is S.EXITED)

    assert all(report.state is not S.EXITED for report in held)
    assert [lost] == host.remains_ended
