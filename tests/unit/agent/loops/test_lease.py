"""What an agent does when its manager does not answer."""

from __future__ import annotations

from phalanx_agent.loops.lease import Lease
from phalanx_runner.messages import FENCED_CODE
from phalanx_wire.control import Beat
from phalanx_wire.lifecycle import KernelState as S
from tests.support.agent_life import MAIN1, Life, assignment, living
from tests.support.fake_host import FakeHost

STOP_AFTER_S = 300 - 2 - 10
KILL_AFTER_S = 300 - 2


async def answer(life: Life) -> None:
    """The manager answers now."""
    life.workshop.lease.answered_s = life.host.now()
    life.fleet.renewed()
    await life.settle()


async def run(life: Life) -> None:
    await answer(life)
    await life.reach(S.RUNNING)


async def test_a_kernel_goes_on_while_the_manager_answers(host: FakeHost) -> None:
    async with living(host) as life:
        await run(life)
        container = life.report().container_id
        for _ in range(4):
            await life.pass_time(STOP_AFTER_S - 5)
            await answer(life)

        assert (S.RUNNING, container) == (life.state(), life.report().container_id)
        assert [] == [order for order in host.runner(MAIN1).commands if b"stop" in order]


async def test_a_kernel_is_stopped_in_time_when_the_manager_does_not_answer(host: FakeHost) -> None:
    async with living(host) as life:
        await run(life)
        await life.pass_time(STOP_AFTER_S - 5)
        before = life.state()
        await life.pass_time(6)
        report = life.report()

        assert S.RUNNING is before
        assert (S.EXITED, "fenced", 143) == (report.state, report.cause, report.exit_code)
        assert "given up as lost (after 300 s)" in report.message
        assert b'{"op":"stop","signal":15,"grace_ms":8' in host.runner(MAIN1).commands[-1]


async def test_a_runner_that_does_not_obey_is_killed_through_the_engine(host: FakeHost) -> None:
    host.runner(MAIN1).stubborn.add("stop")
    async with living(host) as life:
        await run(life)
        await life.pass_time(STOP_AFTER_S + 1)
        asked = life.state()
        await life.pass_time(KILL_AFTER_S - STOP_AFTER_S + 1)
        report = life.report()

        assert S.RUNNING is asked
        assert (S.EXITED, "fenced", 137) == (report.state, report.cause, report.exit_code)


async def test_a_stop_with_a_long_grace_is_over_in_time_all_the_same(host: FakeHost) -> None:
    host.runner(MAIN1).stubborn.add("stop")
    async with living(host) as life:
        await run(life)
        await life.aim(assignment(S.STOPPED, grace_s=3600.0))
        before = life.state()
        await life.pass_time(KILL_AFTER_S + 2)
        report = life.report()

        assert S.STOPPING is before
        assert (S.STOPPED, "cancelled", 137) == (report.state, report.cause, report.exit_code)


async def test_a_command_that_had_ended_before_keeps_its_end(host: FakeHost) -> None:
    host.runner(MAIN1).stubborn.add("exit")
    async with living(host) as life:
        await run(life)
        host.runner(MAIN1).command_ends(3)
        await life.settle()
        await life.pass_time(KILL_AFTER_S + 1)
        host.runner(MAIN1).ended(3)
        await life.until(lambda: life.state() is S.EXITED)

        assert ("exited", 3) == (life.report().cause, life.report().exit_code)


async def test_a_lease_that_ended_while_the_agent_was_dead_is_the_cause(host: FakeHost) -> None:
    async with living(host) as life:
        await run(life)
    host.skipped += 301
    host.runner(MAIN1).ended(FENCED_CODE)
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING))
        report = life.report()

        assert (S.EXITED, "fenced", FENCED_CODE) == (report.state, report.cause, report.exit_code)


async def test_an_order_to_stop_does_not_hide_the_cause(host: FakeHost) -> None:
    async with living(host) as life:
        await run(life)
        host.skipped += 301
        host.runner(MAIN1).ended(FENCED_CODE)
        await life.aim(assignment(S.STOPPED))

        assert (S.EXITED, "fenced") == (life.state(), life.report().cause)


async def test_an_answer_that_comes_too_late_revives_nothing(host: FakeHost) -> None:
    async with living(host) as life:
        await run(life)
        before = host.scratch.leases[MAIN1]
        host.skipped += 301
        await answer(life)

        assert before == host.scratch.leases[MAIN1]
        assert "fenced" == life.report().cause


async def test_an_agent_that_dies_after_its_own_stop_still_knows_the_cause(host: FakeHost) -> None:
    host.runner(MAIN1).stubborn.add("stop")
    async with living(host) as life:
        await run(life)
        await life.pass_time(STOP_AFTER_S + 1)
    host.runner(MAIN1).ended(143)
    async with living(host) as life:
        await life.aim(assignment(S.STOPPED))
        report = life.report()

        assert (S.EXITED, "fenced", 143) == (report.state, report.cause, report.exit_code)


async def test_an_agent_that_dies_before_its_own_stop_takes_effect_stops_it_again(
    host: FakeHost,
) -> None:
    host.runner(MAIN1).stubborn.add("stop")
    async with living(host) as life:
        await run(life)
        await life.pass_time(STOP_AFTER_S + 1)
    host.runner(MAIN1).stubborn.clear()
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING))
        await life.until(lambda: life.state() is S.EXITED)

        assert "fenced" == life.report().cause


async def test_what_cannot_be_noted_is_stopped_all_the_same(host: FakeHost) -> None:
    async with living(host) as life:
        await run(life)
        host.scratch.failing.append(OSError(28, "No space left on device"))
        await life.pass_time(STOP_AFTER_S + 1)

        assert (S.EXITED, "fenced") == (life.state(), life.report().cause)


async def test_a_command_may_end_with_the_code_of_a_lease_that_holds(host: FakeHost) -> None:
    async with living(host) as life:
        await run(life)
    host.runner(MAIN1).ended(FENCED_CODE)
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING))

        assert ("exited", FENCED_CODE) == (life.report().cause, life.report().exit_code)


async def test_an_agent_that_comes_back_to_a_lease_that_is_over_ends_what_still_runs(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        await run(life)
    host.skipped += 301
    async with living(host) as life:
        life.workshop.lease.answered_s = None
        await life.aim(assignment(S.RUNNING))
        await life.until(lambda: life.state() is S.EXITED)

        assert "fenced" == life.report().cause


async def test_nothing_is_started_before_the_manager_has_answered(host: FakeHost) -> None:
    async with living(host) as life:
        life.workshop.lease.answered_s = None
        await life.aim(assignment(S.RUNNING))
        before = (life.state(), set(host.scratch.marked))
        await answer(life)
        await life.until(lambda: life.state() is S.RUNNING)

        assert (S.CREATED, set()) == before


async def test_nothing_is_started_when_the_last_answer_is_too_old(host: FakeHost) -> None:
    async with living(host) as life:
        await answer(life)
        await life.aim(assignment(S.CREATED))
        await life.pass_time(STOP_AFTER_S + 1)
        await life.aim(assignment(S.RUNNING))

        assert S.CREATED is life.state()


async def test_the_runner_knows_its_end_before_it_is_started_and_later_ones_after(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        await answer(life)
        began_s = host.now()
        life.workshop.lease.answered_s = began_s
        await life.reach(S.RUNNING, lost_after_s=60.0)
        first = host.scratch.leases[MAIN1]
        await life.pass_time(20)
        await answer(life)

        assert began_s + 58 == first
        assert host.scratch.leases[MAIN1] >= first + 20


async def test_a_lease_that_cannot_be_written_is_as_if_nobody_had_answered(host: FakeHost) -> None:
    async with living(host) as life:
        await run(life)
        first = host.scratch.leases[MAIN1]
        host.scratch.failing.append(OSError(28, "No space left on device", "/run"))
        await life.pass_time(20)
        await answer(life)

        assert (S.RUNNING, first) == (life.state(), host.scratch.leases[MAIN1])


async def test_a_lease_counts_from_when_the_answered_beat_was_sent() -> None:
    now = 100.0
    lease = Lease(lambda: now)
    first = lease.beat()
    now = 105.0
    second = lease.beat()
    now = 120.0

    assert (Beat(1), Beat(2)) == (first, second)
    assert (True, 105.0) == (lease.heard(2), lease.answered_s)
    assert (False, False, False) == (lease.heard(1), lease.heard(2), lease.heard(7))
    assert 105.0 == lease.answered_s
