"""What becomes of a session whose attempt has ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from phalanx_manager.core import attempts, explain, goals, govern
from phalanx_manager.core.model import Session, SessionRow, Stop, StopCause, Then
from phalanx_manager.core.session import settle
from phalanx_wire.ids import kernel_id
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.spec import SlurmJob
from tests.support.house import NOW, SID, later, row, snapshot, with_kernel, with_session

S = KernelState
EXITED = {"state": S.EXITED, "ended_as": S.EXITED}
LOST = {"state": S.LOST, "ended_as": S.LOST, "cause": "lost", "message": "its agent was silent"}
RESTARTED = {**EXITED, "exit_code": 137, "cause": "engine-restart"}


def over(one: SessionRow, ran_s: float = 0.0) -> Session:
    """The session after its only attempt, which ran for so long."""
    began = with_session(one, started_at=later(-ran_s), state="running")
    ended = settle(began.session, began.kernels, NOW)
    return attempts.onward(ended, began.kernels, NOW)


def failing(fields: dict[str, Any] | None = None, **spec: Any) -> SessionRow:
    return with_kernel(row("a", S.RUNNING, **spec), 0, **(fields or {**EXITED, "exit_code": 3}))


def stopped(cause: StopCause, then: Then = "", **spec: Any) -> SessionRow:
    one = with_kernel(row("a", S.RUNNING, **spec), 0, state=S.STOPPED, ended_as=S.STOPPED)
    return with_session(one, stop=Stop(cause, "because", NOW, then=then))


def tried_again(session: Session) -> bool:
    return ("pending", 2) == (session.state, session.attempt)


def test_a_failure_ends_a_session_that_may_fail_once() -> None:
    session = over(failing())

    assert ("failed", 1, 1, 3) == (
        session.state,
        session.attempt,
        session.charged,
        session.exit_code,
    )


@pytest.mark.parametrize(("attempt", "again"), [(1, True), (2, True), (3, False)])
def test_a_network_that_an_engine_would_not_make_is_made_of_other_addresses(
    attempt: int,
    *,
    again: bool,
) -> None:
    one = with_session(row("a", S.PREPARING), attempt=attempt)
    assert one.session.network is not None
    broken = replace(one.session.network, failed=True, problem="Pool overlaps")
    stopping = with_session(one, network=broken)
    told = settle(stopping.session, stopping.kernels, NOW)
    ended = with_kernel(
        with_session(stopping, stop=told.stop), 0, ended_as=S.STOPPED, state=S.STOPPED
    )
    session = over(ended)

    assert (("pending", 0) if again else ("failed", 1)) == (session.state, session.charged)
    assert again == (session.network is None)


def test_a_failure_is_tried_again_while_attempts_are_left() -> None:
    session = over(failing(max_attempts=2))

    assert tried_again(session)
    assert 1 == session.charged
    assert "rank 0 (main1) on agent a exited with code 3" == session.because


def test_the_last_failure_says_how_often_it_was_tried() -> None:
    one = with_session(failing(max_attempts=2), attempt=2, charged=1)
    session = over(one)

    assert ("failed", 2) == (session.state, session.attempt)
    assert session.reason.endswith("exited with code 3; it was tried 2 times")


def test_nothing_of_the_old_attempt_is_left_in_the_next() -> None:
    one = with_session(failing(max_attempts=2), warned_at=None, reason="old")
    session = over(one)

    assert (None, None, None, None, None, None, "") == (
        session.started_at,
        session.ended_at,
        session.stop,
        session.exit_code,
        session.failed_rank,
        session.network,
        session.reason,
    )


@pytest.mark.parametrize("trouble", [LOST, RESTARTED, {**RESTARTED, "cause": "fenced"}])
@pytest.mark.parametrize("wish", [{"requeue": True}, {"max_attempts": 2}])
def test_what_a_host_took_along_is_tried_again_and_not_charged(
    trouble: dict[str, Any], wish: dict[str, Any]
) -> None:
    session = over(failing(trouble, **wish))

    assert tried_again(session)
    assert 0 == session.charged


@pytest.mark.parametrize("trouble", [LOST, RESTARTED])
def test_without_a_wish_what_a_host_took_along_has_failed(trouble: dict[str, Any]) -> None:
    assert "failed" == over(failing(trouble)).state


def test_requeue_alone_does_not_forgive_a_failure_of_its_own() -> None:
    assert "failed" == over(failing(requeue=True)).state


@pytest.mark.parametrize(
    "apart",
    [
        {"state": S.REJECTED, "ended_as": S.REJECTED, "cause": "hosts-apart"},
        {**EXITED, "exit_code": 1, "cause": "mesh-failed"},
    ],
    ids=["hosts-apart", "mesh-failed"],
)
def test_hosts_that_do_not_reach_each_other_are_tried_a_few_times_where_requeue_was_asked_for(
    apart: dict[str, Any],
) -> None:
    def ended(charged: int, **spec: Any) -> Session:
        one = with_session(row("ab", S.CREATED, **spec), charged=charged, started_at=None)
        one = with_kernel(one, 0, **apart)
        one = with_kernel(one, 1, state=S.STOPPED, ended_as=S.STOPPED, cause="cancelled")
        return attempts.onward(settle(one.session, one.kernels, NOW), one.kernels, NOW)

    assert [True, True, False] == [tried_again(ended(times, requeue=True)) for times in range(3)]
    assert not tried_again(ended(0))
    assert tried_again(ended(3, requeue=True, max_attempts=5))


def test_a_neighbour_that_fails_first_does_not_hide_what_the_host_did() -> None:
    one = with_kernel(row("ab", S.RUNNING, requeue=True), 0, **{**EXITED, "exit_code": 1})
    one = with_kernel(one, 1, **RESTARTED)
    session = over(one)

    assert tried_again(session)
    assert session.because == (
        "rank 0 (main1) on agent a exited with code 1; rank 1 (sub1) on agent b ended because "
        "the engine of its host restarted"
    )


@pytest.mark.parametrize(("requeue", "again"), [(True, True), (False, False)])
def test_the_time_limit_is_tried_again_only_where_that_was_asked_for(
    *, requeue: bool, again: bool
) -> None:
    session = over(stopped(StopCause.TIME_LIMIT, requeue=requeue, max_attempts=3))

    assert again is tried_again(session)
    assert 0 == session.charged


def test_a_command_that_its_warning_killed_is_tried_again_and_not_charged() -> None:
    warned = with_session(failing(requeue=True), warned_at=NOW)
    session = over(warned)

    assert tried_again(session)
    assert 0 == session.charged


def test_a_command_that_succeeds_after_its_warning_has_succeeded() -> None:
    done = failing({**EXITED, "exit_code": 0}, requeue=True)

    assert "succeeded" == over(with_session(done, warned_at=NOW)).state


def test_who_asks_for_another_attempt_gets_it() -> None:
    session = over(stopped(StopCause.REQUEUE, "again"))

    assert tried_again(session)
    assert ("because", 0) == (session.because, session.charged)


@pytest.mark.parametrize("cause", list(StopCause))
def test_the_users_end_wins_over_everything(cause: StopCause) -> None:
    session = over(stopped(cause, "end", requeue=True, max_attempts=9))

    assert not tried_again(session)
    assert session.ended_at is not None


def test_a_users_stop_is_an_end() -> None:
    session = over(stopped(StopCause.USER, requeue=True, max_attempts=9))

    assert ("cancelled", "because") == (session.state, session.reason)


@pytest.mark.parametrize(
    ("wish", "again"), [({"requeue": True}, True), ({"max_attempts": 2}, True), ({}, False)]
)
def test_a_drained_host_requeues_who_may_be(wish: dict[str, Any], *, again: bool) -> None:
    assert again is tried_again(over(stopped(StopCause.DRAIN, **wish)))


@pytest.mark.parametrize(
    ("attempt", "ran_s", "pause_s"),
    [(1, 0, 1), (2, 59, 2), (5, 0, 16), (12, 0, 300), (900, 0, 300), (7, 60, None)],
)
def test_attempts_that_end_soon_are_followed_by_a_pause_that_doubles(
    attempt: int, ran_s: float, pause_s: float | None
) -> None:
    one = with_session(failing(LOST, requeue=True), attempt=attempt)
    session = over(one, ran_s)

    assert (None if pause_s is None else later(pause_s)) == session.not_before


def test_what_is_held_back_for_longer_than_its_pause_stays_so() -> None:
    held = with_session(failing(LOST, requeue=True), not_before=later(500))

    assert later(500) == over(held).not_before


def test_there_is_a_last_attempt_whatever_is_asked_for() -> None:
    one = with_session(failing(LOST, requeue=True), attempt=attempts.LAST_ATTEMPT)
    session = over(one, 3600)

    assert "failed" == session.state
    assert session.reason.endswith("; it is not tried again after 1000 attempts")


def test_the_next_attempts_kernels_are_new_ones_of_the_same_sizes() -> None:
    before = row("ab", S.REMOVED).kernels
    kernels = attempts.fresh(SID, 2, before, later(5))

    assert [kernel_id(SID, 2, 0), kernel_id(SID, 2, 1)] == [kernel.id for kernel in kernels]
    assert all(
        replace(old, id=new.id, agent=None, address="", state=S.PENDING, state_at=later(5)) == new
        for old, new in zip(before, kernels, strict=True)
    )


def test_a_waiting_attempt_says_what_came_before_and_what_it_waits_for() -> None:
    session = over(failing(max_attempts=2))
    kernels = attempts.fresh(SID, 2, row("a").kernels, NOW)
    after = "attempt 2 after: rank 0 (main1) on agent a exited with code 3"
    waiting = replace(session, reason="no agent has cpu 9 free")

    assert f"{after}; it is not placed before 03:04:06 UTC" == explain.session_reason(
        SessionRow(session, kernels)
    )
    assert f"{after}; no agent has cpu 9 free" == explain.session_reason(
        SessionRow(waiting, kernels)
    )


@pytest.mark.parametrize(
    ("one", "kept"),
    [
        (failing(hold_on_failure_s=60.0), True),
        (failing(), False),
        (failing({**EXITED, "exit_code": 0}, hold_on_failure_s=60.0), False),
        (stopped(StopCause.USER, hold_on_failure_s=60.0), False),
        (stopped(StopCause.KERNEL_FAILED, hold_on_failure_s=60.0), True),
        (stopped(StopCause.KERNEL_FAILED, "end", hold_on_failure_s=60.0), False),
    ],
)
def test_only_failures_are_kept_for_a_look(one: SessionRow, kept: bool) -> None:  # noqa: FBT001
    ended = settle(one.session, one.kernels, NOW)

    assert (later(60) if kept else None) == attempts.kept(ended, NOW).kept_until


def test_what_is_kept_is_stopped_and_not_removed_and_says_so() -> None:
    one = with_session(failing(), state="failed", reason="it broke", kept_until=later(60))
    gone = with_session(one, kept_until=None)

    assert S.STOPPED is goals.goal(one, one.kernels[0], S.RUNNING)
    assert S.REMOVED is goals.goal(gone, one.kernels[0], S.RUNNING)
    assert explain.session_reason(one) == (
        "it broke; its containers are kept until 03:05:05 UTC: `phalanx cp` reads their files, "
        "`phalanx stop` lets them go"
    )


def test_what_is_kept_is_let_go_in_time_and_not_overdue_before() -> None:
    one = with_session(failing(), state="failed", kept_until=later(600))
    early = govern.rule(snapshot([one]), {}, 300, later(599))
    late = govern.rule(snapshot([one]), {}, 300, later(600))

    assert ((), (), later(600)) == (early.overdue, early.looked_at, early.next_at)
    assert ((SID, 1),) == late.looked_at


@pytest.mark.parametrize(("signal", "again"), [(None, False), ("USR1@90", True)])
def test_a_slurm_job_goes_on_after_its_time_limit_only_when_it_was_to_be_warned(
    signal: str | None, *, again: bool
) -> None:
    wish = {"requeue": True, "slurm": SlurmJob(), "time_limit_s": 600.0, "warn_signal": signal}
    ended = over(stopped(StopCause.TIME_LIMIT, "", **wish))

    assert again is tried_again(ended)
