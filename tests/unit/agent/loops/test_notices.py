"""Signals before a stop, as an agent sends them: once, over its own death."""

from __future__ import annotations

from phalanx_agent.core.seen import Noted
from phalanx_wire.lifecycle import KernelState as S
from phalanx_wire.notice import Notice
from tests.support.agent_life import MAIN1, Life, assignment, living
from tests.support.fake_host import FakeHost

LIMIT = (Notice("limit", 10),)


async def warn(life: Life) -> None:
    await life.aim(assignment(S.RUNNING, notices=LIMIT))


async def test_a_command_hears_its_warning_once_however_often_it_is_owed(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        await warn(life)
        await life.aim(assignment(S.RUNNING))
        await warn(life)
    async with living(host) as life:
        await warn(life)

    assert [10] == host.runner(MAIN1).signals


async def test_each_notice_is_heard(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        await warn(life)
        await life.aim(assignment(S.RUNNING, notices=(*LIMIT, Notice("drain", 12))))

    assert [10, 12] == host.runner(MAIN1).signals


async def test_a_warning_that_was_noted_and_not_sent_is_sent_by_the_next_agent(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
    host.scratch.notes[MAIN1] = Noted(notices={"limit": len(host.runner(MAIN1).ring)})
    async with living(host) as life:
        await warn(life)

    assert [10] == host.runner(MAIN1).signals


async def test_a_warning_waits_for_the_command(host: FakeHost) -> None:
    async with living(host) as life:
        await life.aim(assignment(S.READY, notices=LIMIT))
        before = list(host.runner(MAIN1).signals)
        await warn(life)

    assert [] == before
    assert [10] == host.runner(MAIN1).signals


async def test_the_tasks_of_steps_are_told_through_their_own_way(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        await life.aim(assignment(S.RUNNING, notices=(Notice("limit", 10, tasks=True),)))

    assert [(MAIN1, 10)] == host.tasks_heard
    assert [] == host.runner(MAIN1).signals


async def test_a_warning_for_which_there_is_no_room_comes_when_there_is(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        host.scratch.failing.append(OSError(28, "No space left on device"))
        await warn(life)
        before = list(host.runner(MAIN1).signals)
        said = life.report().detail
        await life.pass_time(1)

    assert [] == before
    assert "No space left on device" in said
    assert [10] == host.runner(MAIN1).signals
