"""Signals before a stop: for whom, when, and once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phalanx_manager.core import govern
from phalanx_manager.core.model import AgentRecord, Drain, SessionRow, Stop, StopCause
from phalanx_manager.core.notice import Decision, decisions, drains, hearers, owed, recipients
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from tests.support.house import NOW, SID, agent, later, row, snapshot, with_kernel, with_session

S = KernelState
A, B = AgentId("a"), AgentId("b")


def warned(**fields: object) -> SessionRow:
    one = row("ab", S.RUNNING, time_limit_s=600.0, warn_signal="USR1@90")
    return with_session(one, **{"started_at": NOW, "state": "running", **fields})


def drained(**fields: object) -> AgentRecord:
    drain = Drain("ada: new disks", NOW, signal=10)
    return agent("a", drain=replace(drain, **fields))  # type: ignore[arg-type]


def test_a_warning_is_due_so_long_before_the_limit() -> None:
    ((at, decision),) = decisions(snapshot([warned()]), NOW)

    assert later(510) == at
    assert Decision(SID, 1, "USR1 sent, 90 s before its time limit") == decision


@pytest.mark.parametrize(
    "fields",
    [
        {"warned_at": later(510)},
        {"stop": Stop(StopCause.USER, "", NOW)},
        {"started_at": None},
        {"state": "failed"},
    ],
)
def test_it_is_sent_once_and_only_to_what_runs(fields: dict[str, object]) -> None:
    assert [] == list(decisions(snapshot([warned(**fields)]), NOW))


def test_without_a_wish_there_is_no_signal() -> None:
    one = with_session(row("a", S.RUNNING, time_limit_s=600.0), started_at=NOW)

    assert [] == list(decisions(snapshot([one]), NOW))


def test_the_ruling_holds_it_when_it_is_due_and_looks_again_by_then() -> None:
    shot = snapshot([warned()], [agent("a"), agent("b")])
    early, late = govern.rule(shot, {}, 300, later(509)), govern.rule(shot, {}, 300, later(510))

    assert ((), later(510)) == (early.decisions, early.next_at)
    assert [SID] == [decision.session for decision in late.decisions]


def test_who_idles_or_has_ended_hears_nothing() -> None:
    main = with_kernel(row("abb", S.RUNNING, run_on="main"), 0, state=S.RUNNING)
    some = with_kernel(row("abb", S.RUNNING), 1, state=S.EXITED)

    assert [0] == [kernel.rank for kernel in hearers(main)]
    assert [0, 2] == [kernel.rank for kernel in hearers(some)]


def told(one: SessionRow, *agents: AgentRecord) -> list[list[tuple[int, bool]]]:
    """The signals that each rank shall hear, and whether its tasks do."""
    drained_ones = drains(snapshot([one], list(agents)))
    return [
        [(notice.signal, notice.tasks) for notice in owed(one, kernel, drained_ones)]
        for kernel in one.kernels
    ]


@pytest.mark.parametrize(
    ("wish", "heard"),
    [
        ("USR1@90", [[(10, True)], [(10, True)], [(10, True)]]),
        ("B:USR1@90", [[(10, False)], [], []]),
    ],
)
def test_in_a_slurm_job_the_tasks_of_all_nodes_are_warned_or_the_script(
    wish: str, heard: list[list[tuple[int, bool]]]
) -> None:
    job = row(
        "abc", S.RUNNING, time_limit_s=600.0, warn_signal=wish, env_profile="slurm", run_on="main"
    )

    assert heard == told(with_session(job, started_at=NOW, warned_at=later(510)))


def test_what_was_decided_is_owed_until_the_session_stops() -> None:
    before, after = warned(), warned(warned_at=later(510))
    stopped = with_session(after, stop=Stop(StopCause.USER, "", NOW))

    assert [[], []] == told(before)
    assert [[(10, False)], [(10, False)]] == told(after)
    assert [[], [(10, False)]] == told(with_kernel(after, 0, state=S.EXITED))
    assert [[], []] == told(stopped)


def test_a_drain_is_owed_to_what_ran_when_it_began() -> None:
    here, later_on = warned(), warned(started_at=later(1))
    elsewhere = with_session(row("b", S.RUNNING), started_at=NOW)

    assert [[(10, False)], [(10, False)]] == told(here, drained(signalled=True), agent("b"))
    assert [[], []] == told(later_on, drained(), agent("b"))
    assert [[]] == told(elsewhere, drained(), agent("b"))
    assert [[], []] == told(here, drained(signal=0), agent("b"))


def test_each_drain_is_a_notice_of_its_own() -> None:
    first, again = drains(snapshot([], [drained()])), drains(snapshot([], [drained(at=later(9))]))
    one = warned(warned_at=NOW)
    ids = {notice.id for found in (first, again) for notice in owed(one, one.kernels[0], found)}

    assert 3 == len(ids)


def test_a_signal_for_all_is_for_the_tasks_where_no_command_runs() -> None:
    job = row("ab", S.RUNNING, env_profile="slurm", run_on="main")

    assert ["all", "tasks"] == [recipients(job.session, one, "all") for one in job.kernels]


def test_a_drain_with_a_signal_tells_all_ranks_of_the_sessions_that_run_there() -> None:
    here, elsewhere = row("ab", S.RUNNING), row("b", S.RUNNING, session="bbbbbbbbbbbb")  # type: ignore[arg-type]
    found = list(decisions(snapshot([here, elsewhere], [drained(), agent("b")]), later(3)))

    assert [(later(3), Decision(SID, 1, "USR1 sent: agent a is drained", A))] == found


@pytest.mark.parametrize("fields", [{"signal": 0}, {"signalled": True}])
def test_a_drain_without_a_signal_or_with_one_that_was_sent_tells_nobody(
    fields: dict[str, object],
) -> None:
    assert [] == list(decisions(snapshot([row("a", S.RUNNING)], [drained(**fields)]), NOW))


def test_what_still_runs_on_a_drained_host_at_the_deadline_is_stopped() -> None:
    shot = snapshot([row("ab", S.RUNNING)], [drained(deadline=later(60)), agent("b")])
    early, late = govern.rule(shot, {}, 300, later(59)), govern.rule(shot, {}, 300, later(60))

    assert ((), later(60)) == (early.stops, early.next_at)
    ((session, stop),) = late.stops
    assert (SID, StopCause.DRAIN) == (session, stop.cause)
    assert "agent a is drained: ada: new disks" == stop.text


def test_a_drained_host_without_a_deadline_lets_what_runs_there_run() -> None:
    shot = snapshot([row("a", S.RUNNING)], [drained()])

    assert () == govern.rule(shot, {}, 300, later(9_999)).stops
