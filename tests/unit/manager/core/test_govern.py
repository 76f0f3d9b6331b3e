"""Deadlines, time limits, silent agents."""

from __future__ import annotations

from collections.abc import Mapping

from phalanx_agent.core.fence import fence
from phalanx_manager.core import govern
from phalanx_manager.core.govern import DEADLINE_S, Ruling
from phalanx_manager.core.model import SessionRow, Stop, StopCause
from phalanx_manager.core.session import lost_after_s
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.lifecycle import KernelState
from tests.support.house import NOW, agent, later, row, snapshot, with_kernel, with_session

S = KernelState
A, B = AgentId("a"), AgentId("b")


def ruled(
    one: SessionRow, after_s: float, silence_s: Mapping[AgentId, float] | None = None
) -> Ruling:
    shot = snapshot([one], [agent("a"), agent("b")])
    return govern.rule(shot, silence_s or {}, 300, later(after_s))


def test_every_state_has_a_deadline_but_those_that_may_last() -> None:
    assert set(KernelState) == set(DEADLINE_S)
    assert {S.PENDING, S.RUNNING, S.LOST, S.REMOVED} == {
        state for state, limit in DEADLINE_S.items() if limit is None
    }


def test_a_kernel_that_stays_too_long_stops_its_session_with_what_it_does() -> None:
    one = row("ab", [S.CREATED, S.PREPARING])
    one = with_kernel(one, 1, detail="pulling busybox: 3.1 of 9.8 GB")
    ((session, stop),) = ruled(one, 1860).stops

    assert (one.session.id, StopCause.DEADLINE, 1) == (session, stop.cause, stop.rank)
    assert (
        "rank 1 (sub1) on agent b has been PREPARING for 1860 s: pulling busybox: 3.1 of 9.8 GB"
        == stop.text
    )


def test_the_sentence_says_that_the_agent_is_silent() -> None:
    ((_, stop),) = ruled(row("a", S.ASSIGNED), 61, {A: 45.0}).stops

    assert stop.text.endswith("agent a has been silent for 45 s")


def test_in_time_nothing_happens_and_the_next_look_is_when_it_would() -> None:
    ruling = ruled(row("a", S.STARTING), 10)

    assert () == ruling.stops
    assert later(120) == ruling.next_at


def test_a_time_limit_counts_from_running() -> None:
    one = with_session(row("a", S.RUNNING, time_limit_s=60.0), started_at=later(10))
    early, late = ruled(one, 69), ruled(one, 70)

    assert ((), later(70)) == (early.stops, early.next_at)
    ((_, stop),) = late.stops
    assert (StopCause.TIME_LIMIT, "its time limit of 60 s is over") == (stop.cause, stop.text)


def test_who_is_stopped_already_is_not_stopped_again() -> None:
    one = with_session(row("a", S.ASSIGNED), stop=Stop(StopCause.USER, "", NOW))

    assert () == ruled(one, 9_999).stops


def test_a_silent_agents_kernels_are_lost_and_no_others() -> None:
    one = row("aab", [S.RUNNING, S.EXITED, S.RUNNING])
    lost = ruled(one, 306, {A: 306.0, B: 2.0}).lost

    assert {A} == set(lost)
    (change,) = lost[A]
    assert (0, S.LOST, S.LOST) == (change.after.rank, change.after.state, change.after.ended_as)
    assert (
        "rank 0 (main1) on agent a is lost: its agent has been silent for 306 s"
        == (change.texts[0])
    )


def test_an_agent_without_kernels_is_lost_too_but_only_once() -> None:
    one = row("b", S.RUNNING)
    shot = snapshot([one], [agent("a"), agent("b")])
    again = snapshot([one], [agent("a", lost=True), agent("b")])

    assert (A,) == govern.rule(shot, {A: 306.0}, 300, NOW).gone
    assert () == govern.rule(again, {A: 306.0}, 300, NOW).gone


def test_the_verdict_comes_after_the_agent_has_ended_its_kernels_by_itself() -> None:
    one = row("a", S.RUNNING)
    answered_s = 0.0  # sent then, heard then at the earliest
    over_s = fence(answered_s, lost_after_s(one.session), 3600.0).kill_at

    assert {} == ruled(one, over_s, {A: over_s}).lost
    assert {} == ruled(one, 300, {A: 300.0}).lost
    assert {} == ruled(one, 305, {A: 305.0}).lost
    assert {A} == set(ruled(one, 306, {A: 306.0}).lost)


def test_each_session_says_itself_how_long_a_silence_it_bears() -> None:
    hasty = row("a", S.RUNNING, session=SessionId("aaaaaaaaaaaa"), lost_after_s=60.0)
    patient = row("a", S.RUNNING, session=SessionId("bbbbbbbbbbbb"), lost_after_s=900.0)
    shot = snapshot([hasty, patient], [agent("a")])
    early = govern.rule(shot, {A: 66.0}, 300, NOW)
    later_on = govern.rule(shot, {A: 306.0}, 300, NOW)
    gone = snapshot([patient], [agent("a", lost=True)])
    at_last = govern.rule(gone, {A: 906.0}, 300, NOW)

    assert ["aaaaaaaaaaaa"] == [change.after.session for change in early.lost[A]]
    assert () == early.gone
    assert (A,) == later_on.gone
    assert ["aaaaaaaaaaaa"] == [change.after.session for change in later_on.lost[A]]
    assert ["bbbbbbbbbbbb"] == [change.after.session for change in at_last.lost[A]]


def test_an_end_that_takes_too_long_is_told_once_and_its_slots_stay_taken() -> None:
    one = row("a", S.STOPPING)
    early, late = ruled(one, 129), ruled(one, 130)
    ((change, text),) = late.overdue
    told = SessionRow(one.session, (change.after,))

    assert ((), later(130)) == (early.overdue, early.next_at)
    assert text == (
        "rank 0 (main1) on agent a is STOPPING and not gone after 130 s: its slots stay taken; "
        "look at its agent's log"
    )
    assert ((), S.STOPPING, True) == (change.steps, change.after.state, change.after.holds)
    assert () == ruled(told, 200).overdue
