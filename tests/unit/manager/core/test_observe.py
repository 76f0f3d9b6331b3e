"""From reports to steps."""

from __future__ import annotations

from dataclasses import replace

from phalanx_manager.core import observe
from phalanx_manager.core.model import SessionRow
from phalanx_manager.core.observe import Changes
from phalanx_wire.control import NetworkReport, Observed
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from tests.support.house import NOW, agent, later, observed, report, reporting, row, snapshot

S = KernelState
A, B = AgentId("a"), AgentId("b")


def seen(one: SessionRow, what: Observed, removals: dict[str, int] | None = None) -> Changes:
    return observe.changes(snapshot([one], [agent("a")]), A, what, removals or {}, later(1))


def test_skipped_states_are_walked_one_by_one() -> None:
    one = row("a", S.ASSIGNED)
    change = seen(one, reporting(observed(), report(one.kernels[0], S.RUNNING))).kernels[0]

    assert (S.PREPARING, S.CREATED, S.STARTING, S.READY, S.MESHED, S.RUNNING) == change.steps
    assert (S.ASSIGNED, S.RUNNING, later(1)) == (
        change.seen,
        change.after.state,
        change.after.state_at,
    )
    assert 6 == len(change.texts)


def test_a_late_report_changes_nothing() -> None:
    one = row("a", S.RUNNING)

    assert Changes() == seen(one, reporting(observed(), report(one.kernels[0], S.CREATED)))


def test_the_same_report_again_changes_nothing() -> None:
    one = row("a", S.CREATED)

    assert Changes() == seen(one, reporting(observed(), report(one.kernels[0], S.CREATED)))


def test_what_the_agent_does_now_is_kept_without_a_step() -> None:
    one = row("a", S.PREPARING)
    told = report(one.kernels[0], S.PREPARING, detail="pulling busybox: 3 of 9 MB")
    change = seen(one, reporting(observed(), told)).kernels[0]

    assert ((), "pulling busybox: 3 of 9 MB") == (change.steps, change.after.detail)


def test_of_sentences_without_end_a_bounded_part_is_kept() -> None:
    one = row("a", S.RUNNING)
    long = "x" * (1 << 20)
    told = report(
        one.kernels[0], S.EXITED, message=long, detail=long, warnings=(long,) * 1000, exit_code=1
    )
    after = seen(one, reporting(observed(), told)).kernels[0].after

    assert len(after.message) + len(after.detail) + sum(map(len, after.warnings)) < 1 << 21
    assert 100 == len(after.warnings)


def test_an_end_has_its_code_and_cause_and_keeps_them_when_removed() -> None:
    one = row("a", S.RUNNING)
    told = report(one.kernels[0], S.EXITED, exit_code=3, cause="exited")
    ended = seen(one, reporting(observed(), told)).kernels[0].after
    again = replace(one, kernels=(ended,))
    removed = seen(again, reporting(observed(), report(ended, S.REMOVED))).kernels[0].after

    assert (S.EXITED, S.EXITED, 3) == (ended.state, ended.ended_as, ended.exit_code)
    assert (S.REMOVED, S.EXITED, 3) == (removed.state, removed.ended_as, removed.exit_code)


def test_an_end_that_was_stored_is_not_written_twice() -> None:
    one = row("a", S.RUNNING)
    told = report(one.kernels[0], S.EXITED, exit_code=3)
    ended = seen(one, reporting(observed(), told)).kernels[0].after
    again = replace(one, kernels=(ended,))

    assert Changes() == seen(again, reporting(observed(), report(ended, S.EXITED, exit_code=9)))


def test_a_kernel_that_is_gone_without_an_end_is_seen_to_have_ended_first() -> None:
    one = row("a", S.RUNNING)
    change = seen(one, reporting(observed(), report(one.kernels[0], S.REMOVED))).kernels[0]

    assert (S.EXITED, S.REMOVED) == change.steps
    assert (S.EXITED, None) == (change.after.ended_as, change.after.exit_code)


def test_who_was_given_up_stays_so_until_its_agent_has_removed_it() -> None:
    one = row("a", S.LOST)
    one = replace(one, kernels=(replace(one.kernels[0], ended_as=S.LOST),))

    assert Changes() == seen(one, reporting(observed(), report(one.kernels[0], S.RUNNING)))
    removed = seen(one, reporting(observed(), report(one.kernels[0], S.REMOVED))).kernels[0]
    assert ((S.REMOVED,), S.LOST) == (removed.steps, removed.after.ended_as)


def test_an_agent_that_is_back_explains_what_was_given_up() -> None:
    one = row("a", S.LOST)
    lost = replace(one.kernels[0], ended_as=S.LOST, cause="lost", message="silent")
    told = report(lost, S.EXITED, cause="fenced", message="It was cut off.", exit_code=121)
    one = SessionRow(one.session, (lost,))
    change = seen(one, reporting(observed(), told)).kernels[0]
    again = SessionRow(one.session, (change.after,))

    assert ((), S.LOST, S.LOST) == (change.steps, change.after.state, change.after.ended_as)
    assert ("fenced", "It was cut off.", 121) == (
        change.after.cause,
        change.after.message,
        change.after.exit_code,
    )
    assert Changes() == seen(again, reporting(observed(), told))


def test_a_report_that_no_table_allows_is_told_and_changes_nothing() -> None:
    one = row("a", S.EXITED)
    found = seen(one, reporting(observed(), report(one.kernels[0], S.STOPPED)))

    assert () == found.kernels
    assert 1 == len(found.illegal)


def test_an_agent_cannot_speak_for_anothers_kernel() -> None:
    one = row("b", S.ASSIGNED)

    assert Changes() == seen(one, reporting(observed(), report(one.kernels[0], S.RUNNING)))


def test_unknown_and_malformed_kernels_are_passed_over() -> None:
    one = row("a", S.ASSIGNED)
    strange = [
        report(replace(one.kernels[0], id=name), S.RUNNING)  # type: ignore[arg-type]
        for name in ("nonsense", "abcdefghijkl-2-0", "abcdefghijkl-1-7", "zzzzzzzzzzzz-1-0")
    ]

    assert Changes() == seen(one, reporting(observed(), *strange))


def network_name(one: SessionRow) -> str:
    assert one.session.network is not None
    return one.session.network.name


def test_the_owners_network_gets_its_engine_id_and_its_problem() -> None:
    one = row("ab", S.PREPARING)
    made = NetworkReport(network_name(one), engine_id="e" * 64)
    failed = NetworkReport(network_name(one), problem="no space", final=True)
    networks = seen(one, reporting(observed(), networks=(made,))).networks
    broken = seen(one, reporting(observed(), networks=(failed,))).networks

    assert ["e" * 64] == [change.after.engine_id for change in networks]
    assert [("no space", True)] == [(c.after.problem, c.after.failed) for c in broken]


def test_a_network_is_released_only_by_an_answer_to_the_order_to_remove_it() -> None:
    one = row("ab", S.REMOVED)
    removals = {network_name(one): 7}

    assert () == seen(one, observed(revision=6), removals).networks
    assert () == seen(one, observed(revision=9)).networks
    released = seen(one, observed(revision=7), removals).networks
    assert [True] == [change.after.released for change in released]


def test_a_network_that_resists_removal_keeps_its_subnet_and_says_why() -> None:
    one = row("ab", S.REMOVED)
    told = NetworkReport(network_name(one), engine_id="e", problem="has active endpoints")
    found = seen(one, observed(revision=7, networks=(told,)), {network_name(one): 7}).networks

    assert [(False, "has active endpoints")] == [
        (change.after.released, change.after.problem) for change in found
    ]


def test_now_is_when_a_state_was_entered_not_when_it_was_told_again() -> None:
    one = row("a", S.PREPARING)
    told = report(one.kernels[0], S.PREPARING, detail="unpacking")

    assert NOW == seen(one, reporting(observed(), told)).kernels[0].after.state_at
