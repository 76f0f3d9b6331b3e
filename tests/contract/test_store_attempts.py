"""What every store does with a session that is tried again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phalanx_manager.core.model import SessionRow, Stop, StopCause
from phalanx_manager.core.observe import KernelChange, NetworkChange, moved
from phalanx_wire.ids import kernel_id
from phalanx_wire.lifecycle import KernelState, Owner
from tests.support.house import later
from tests.support.store_case import ADA, ONE, A, Case

S = KernelState
UP = (S.PREPARING, S.CREATED, S.STARTING, S.READY, S.MESHED, S.RUNNING)


async def failed_once(case: Case) -> SessionRow:
    """A session of one container whose first attempt has failed, its container still there."""
    await case.join()
    await case.submit(max_attempts=3)
    assert await case.place()
    assert await case.move(0, *UP)
    assert await case.move(0, S.EXITED, exit_code=3, cause="exited")
    await case.again()
    return await case.row()


async def finish(case: Case, row: SessionRow) -> None:
    """Let the agent remove all that an attempt has."""
    changes = tuple(
        KernelChange(
            kernel.state,
            (S.REMOVED,),
            Owner.AGENT,
            moved(kernel, (S.REMOVED,), later(3)),
            ("",),
        )
        for kernel in row.kernels
    )
    assert row.session.network is not None
    network = replace(row.session.network, released=True)
    gone = NetworkChange(row.session.id, row.session.attempt, network)
    assert await case.store.record(changes, (gone,), later(3))


async def test_the_next_attempt_is_in_the_queue_with_kernels_of_its_own(case: Case) -> None:
    row = await failed_once(case)
    session = row.session

    assert ("pending", 2, 1) == (session.state, session.attempt, session.charged)
    assert [(kernel_id(ONE, 2, 0), S.PENDING, None)] == [
        (kernel.id, kernel.state, kernel.agent) for kernel in row.kernels
    ]
    assert (later(3), None) == (session.not_before, session.network)
    assert "rank 0 (main1) on agent a exited with code 3" == session.because


async def test_the_attempt_before_stays_at_hand_until_nothing_of_it_is_left(case: Case) -> None:
    row = await failed_once(case)
    (past,) = row.past
    seen = (past.session.attempt, past.session.state, past.session.exit_code)
    held = [(kernel.id, kernel.state, kernel.holds) for kernel in past.kernels]
    await finish(case, past)
    await case.again()

    assert (1, "failed", 3) == seen
    assert [(kernel_id(ONE, 1, 0), S.EXITED, True)] == held
    assert past.session.network is not None
    assert () == (await case.row()).past
    assert {ONE} == set((await case.store.load()).sessions)


async def test_both_attempts_have_a_network_and_devices_of_their_own(case: Case) -> None:
    row = await failed_once(case)
    too_early = await case.place()
    await finish(case, row.past[0])
    taken = await case.place()
    await case.again()
    row = await case.row()

    assert (False, True) == (too_early, taken)
    assert row.session.network is not None
    assert f"phx-{ONE}-2" == row.session.network.name


async def test_a_session_is_over_when_its_last_attempt_and_all_before_are_gone(case: Case) -> None:
    first = (await failed_once(case)).past[0]
    await case.store.stop(ONE, Stop(StopCause.USER, "enough", later(2)))
    row = await case.row()
    still = set((await case.store.load()).sessions)
    await finish(case, first)

    assert ("cancelled", 2) == (row.session.state, row.session.attempt)
    assert {ONE} == still
    assert {} == (await case.store.load()).sessions


async def test_each_step_is_told_once(case: Case) -> None:
    await failed_once(case)
    kinds = [event.kind for event in await case.store.events(0, ONE, 100)]
    texts = [event.text for event in await case.store.events(0, ONE, 100)]

    assert "session.requeued" == kinds[-1]
    assert texts[-1] == (
        "attempt 1 failed, attempt 2 is next: rank 0 (main1) on agent a exited with code 3"
    )
    assert "session.failed" not in kinds


@pytest.mark.parametrize("first", [StopCause.KERNEL_FAILED, StopCause.REQUEUE])
async def test_a_users_stop_ends_a_session_that_was_on_its_way_to_another_attempt(
    case: Case, first: StopCause
) -> None:
    await case.join()
    await case.submit(max_attempts=3, requeue=True)
    await case.place()
    await case.move(0, *UP)
    then = "again" if first is StopCause.REQUEUE else ""
    await case.store.stop(ONE, Stop(first, "broken", later(2), then=then))  # type: ignore[arg-type]
    stopped = await case.store.stop(ONE, Stop(StopCause.USER, "enough", later(3)))
    again = await case.store.stop(ONE, Stop(StopCause.REQUEUE, "more", later(3), then="again"))
    await case.again()
    await case.move(0, S.STOPPING, S.STOPPED)
    session = (await case.row()).session

    assert (True, False) == (stopped, again)
    assert 1 == session.attempt
    assert (session.state, session.reason) == (
        ("cancelled", "enough") if first is StopCause.REQUEUE else ("failed", "broken")
    )


async def test_a_report_about_an_old_attempt_changes_nothing_of_the_new(case: Case) -> None:
    row = await failed_once(case)
    kernel = row.past[0].kernels[0]
    change = KernelChange(
        S.EXITED, (S.REMOVED,), Owner.AGENT, moved(kernel, (S.REMOVED,), later(3)), ("",)
    )
    await case.store.record((change,), (), later(3))
    after = await case.row()

    assert S.REMOVED is after.past[0].kernels[0].state
    assert (S.PENDING, row.session) == (after.kernels[0].state, after.session)
    assert "a" == A
    assert isinstance(await case.store.session("name-a", ADA), SessionRow)


async def test_every_attempt_can_be_read_by_its_number(case: Case) -> None:
    row = await failed_once(case)
    await finish(case, row.past[0])
    await case.again()
    first, second = await case.store.attempt(ONE, 1), await case.store.attempt(ONE, 2)

    assert first is not None
    assert second is not None
    assert ("failed", 3) == (first.session.state, first.session.exit_code)
    assert [kernel_id(ONE, 1, 0)] == [kernel.id for kernel in first.kernels]
    assert "pending" == second.session.state
    assert await case.store.attempt(ONE, 3) is None


async def test_only_what_waits_is_held_and_only_a_limit_is_extended(case: Case) -> None:
    await case.join()
    await case.submit(time_limit_s=600.0)
    held = await case.store.hold(ONE, "held", later(1), held=True)
    again = await case.store.hold(ONE, "held", later(1), held=True)
    extended = await case.store.extend(ONE, 60.0, "more", later(1))
    await case.again()
    session = (await case.row()).session
    await case.store.stop(ONE, Stop(StopCause.USER, "enough", later(2)))

    assert (True, False, True) == (held, again, extended)
    assert (True, 660.0) == (session.held, session.time_limit_s)
    assert not await case.store.extend(ONE, 60.0, "more", later(3))
    assert not await case.store.hold(ONE, "released", later(3), held=False)


async def test_what_is_held_as_it_gets_its_place_stays_in_the_queue(case: Case) -> None:
    await case.join()
    await case.submit()
    await case.store.hold(ONE, "held", later(1), held=True)
    held = await case.place()
    await case.store.hold(ONE, "released", later(2), held=False)

    assert (False, True) == (held, await case.place())


async def test_an_attempt_is_warned_once(case: Case) -> None:
    await case.join()
    await case.submit()
    first = await case.store.warn(ONE, 1, "USR1 sent", later(1))
    await case.again()

    assert first
    assert not await case.store.warn(ONE, 1, "USR1 sent", later(2))
    assert not await case.store.warn(ONE, 2, "USR1 sent", later(2))
    assert later(1) == (await case.row()).session.warned_at


@pytest.mark.parametrize("max_attempts", [1, 2])
async def test_a_failed_attempt_is_kept_until_it_is_let_go(case: Case, max_attempts: int) -> None:
    await case.join()
    await case.submit(hold_on_failure_s=60.0, max_attempts=max_attempts)
    await case.place()
    await case.move(0, *UP)
    await case.move(0, S.EXITED, exit_code=3, cause="exited")
    await case.again()
    row = (await case.row()).of(1)
    await case.store.let_go(ONE, 1, later(63))
    await case.again()
    after = (await case.row()).of(1)

    assert row is not None
    assert after is not None
    assert (later(62), None) == (row.session.kept_until, after.session.kept_until)


async def test_a_users_stop_lets_go_of_all_that_is_kept(case: Case) -> None:
    await case.join()
    await case.submit(hold_on_failure_s=60.0)
    await case.place()
    await case.move(0, *UP)
    await case.move(0, S.EXITED, exit_code=3, cause="exited")
    first = await case.store.stop(ONE, Stop(StopCause.USER, "seen", later(3)))
    await case.again()
    again = await case.store.stop(ONE, Stop(StopCause.USER, "seen", later(3)))
    session = (await case.row()).session

    assert (True, False) == (first, again)
    assert ("failed", None) == (session.state, session.kept_until)
