"""Which engines form the swarm, and what it is good for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from phalanx_manager.core import swarm
from phalanx_manager.core.model import AgentRecord, Cluster, Snapshot
from phalanx_wire.control import Engine, SwarmGoal, SwarmReport
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from tests.support.house import CLUSTER, agent, in_swarm, observed, row, snapshot, with_session


def waiting(*records: AgentRecord) -> Snapshot:
    one = with_session(row([None, None], KernelState.PENDING), reason="no room on one agent")
    return snapshot([one], records)


def planned(shot: Snapshot, *, eager: bool = False) -> Mapping[AgentId, SwarmGoal]:
    return swarm.goals(shot, CLUSTER, eager=eager)


def told(shot: Snapshot, founder: str) -> Snapshot:
    """That one has been told to make the swarm."""
    return replace(shot, clusters={CLUSTER: Cluster(CLUSTER, founder=AgentId(founder))})


def outside(name: str, **fields: object) -> AgentRecord:
    return agent(name, observed(name, swarm=SwarmReport(**fields)))  # type: ignore[arg-type]


def inside(name: str, *, control: bool = False) -> AgentRecord:
    return agent(name, in_swarm(name, control=control))


def test_nothing_is_asked_for_until_a_session_needs_several_hosts() -> None:
    assert {} == planned(snapshot([], [outside("a"), outside("b")]))


def test_the_first_agent_begins_the_swarm_and_the_others_wait_for_it() -> None:
    assert {"a": SwarmGoal("init", canary=True)} == planned(waiting(outside("a"), outside("b")))


def test_eagerly_it_is_begun_as_soon_as_there_are_two() -> None:
    assert {"a"} == set(planned(snapshot([], [outside("a"), outside("b")]), eager=True))
    assert {} == planned(snapshot([], [outside("a")]), eager=True)


def test_nobody_else_begins_it_while_the_one_who_was_told_to_may_be_at_it() -> None:
    both, alone = waiting(outside("a"), outside("b")), waiting(outside("b"))
    away = waiting(agent("b", connected=False), outside("a"), outside("c"))
    failed = waiting(outside("a"), outside("b", problem="port 2377 is taken"))

    plans = [planned(told(shot, "b")) for shot in (both, away, failed)]

    assert [{"b"}, set(), {"a"}] == [set(plan) for plan in plans]
    assert {} == planned(told(alone, "b"))


def test_nobody_begins_another_until_the_lost_host_that_was_told_to_is_given_up() -> None:
    lost = agent("a", outside("a").observed, connected=False, lost=True)
    shot = waiting(lost, outside("b"), outside("c"))

    assert {"b"} == set(planned(shot))
    assert {} == planned(told(shot, "a"))
    assert "phalanx node forget a" in swarm.verdict(told(shot, "a"), CLUSTER).waits
    assert {"b"} == set(planned(told(waiting(outside("b"), outside("c")), "a")))


def test_nobody_begins_another_while_an_agent_with_one_is_away() -> None:
    gone = agent("a", in_swarm("a", control=True), connected=False)

    assert {} == planned(waiting(gone, outside("b"), outside("c")))


def test_nobody_begins_another_until_the_lost_host_that_has_it_is_given_up() -> None:
    lost = agent("a", in_swarm("a", control=True), connected=False, lost=True)
    shot = waiting(lost, outside("b"), outside("c"))

    assert {} == planned(shot)
    assert "phalanx node forget a" in swarm.verdict(shot, CLUSTER).waits
    assert {"b"} == set(planned(waiting(outside("b"), outside("c"))))


def test_nobody_begins_it_while_one_has_not_answered_whom_an_earlier_manager_may_have_told() -> (
    None
):
    both, one = waiting(outside("a"), outside("b")), AgentId("b")

    assert {} == swarm.goals(both, CLUSTER, eager=True, unanswered={one})
    assert {} == swarm.goals(told(both, "b"), CLUSTER, eager=True, unanswered={one})
    assert {"a"} == set(swarm.goals(told(both, "a"), CLUSTER, eager=True, unanswered={one}))


def test_nobody_begins_another_while_an_engine_has_not_been_asked_since_its_agent_began() -> None:
    unasked = observed("a", swarm=SwarmReport(state="pending"), engine=Engine(problem="Away."))

    assert {} == planned(waiting(agent("a", unasked), outside("b"), outside("c")))


def test_nobody_begins_another_while_an_engine_has_not_answered_whether_it_did() -> None:
    unsure = outside("b", state="pending", problem="It did not answer.")

    assert {} == planned(waiting(outside("a"), unsure))


def test_two_agents_have_one_manager() -> None:
    plan = planned(waiting(inside("a", control=True), outside("b")))

    assert SwarmGoal("keep", canary=True) == plan[AgentId("a")]
    assert SwarmGoal("join", "W", ("192.0.2.1:2377",)) == plan[AgentId("b")]


def test_of_three_and_more_three_are_managers_and_join_one_at_a_time() -> None:
    first = planned(waiting(inside("a", control=True), outside("b"), outside("c"), outside("d")))
    second = planned(
        waiting(inside("a", control=True), inside("b", control=True), outside("c"), inside("d"))
    )

    assert {"a": "", "b": "M", "d": "W"} == {name: goal.token for name, goal in first.items()}
    assert ("M", ("192.0.2.1:2377", "192.0.2.2:2377")) == (
        second[AgentId("c")].token,
        second[AgentId("c")].remotes,
    )


def test_agents_that_are_away_or_lost_are_not_counted_on() -> None:
    shot = waiting(agent("a", connected=False), agent("b", lost=True), outside("c"), outside("d"))

    assert {"c"} == set(planned(shot))


def test_the_owner_is_a_manager_whose_canary_network_was_made() -> None:
    verdict = swarm.verdict(waiting(inside("a", control=True), inside("b")), CLUSTER)

    assert ("a", {"a", "b"}, "") == (verdict.owner, set(verdict.members), verdict.waits)


def test_without_a_canary_sessions_wait_and_the_reason_says_what_it_met() -> None:
    bad = in_swarm("a", control=True)
    report = SwarmReport("active", "s", "n", control=True, address="192.0.2.1", problem="no leader")
    verdict = swarm.verdict(
        waiting(
            agent("a", type(bad)("b", 0, bad.capacity, "x", bad.engine, swarm=report)), inside("b")
        ),
        CLUSTER,
    )

    assert verdict.owner is None
    assert "the swarm on agent a cannot make networks: no leader" == verdict.waits


@pytest.mark.parametrize(
    "problem",
    [
        "The swarm does not have a leader. It's possible that too few managers are online.",
        "The swarm does not answer; has it lost most of its managers?",
    ],
)
def test_a_swarm_without_enough_managers_says_how_another_is_formed(problem: str) -> None:
    report = SwarmReport("active", "swarm-one", "n", control=True, problem=problem)
    shot = waiting(agent("a", observed("a", swarm=report)), inside("b"), outside("c"))

    waits = swarm.verdict(shot, CLUSTER).waits
    assert "run `docker swarm leave --force` on a, b, and the engines form another" in waits


def test_engines_in_different_swarms_are_named_with_what_to_do() -> None:
    other = agent("b", observed("b", swarm=SwarmReport("active", "swarm-two", control=True)))
    shot = waiting(inside("a", control=True), other, outside("c"))
    verdict = swarm.verdict(shot, CLUSTER)

    assert "a in swarm-one and b in swarm-two" in verdict.waits
    assert "docker swarm leave --force` on a" in verdict.waits
    assert {} == planned(shot)


def test_workers_of_a_swarm_whose_manager_is_no_agent_wait_with_a_reason() -> None:
    verdict = swarm.verdict(waiting(inside("a"), inside("b")), CLUSTER)

    assert "no manager of the swarm that a, b are in is an agent here" in verdict.waits


def test_an_engine_that_could_not_join_is_named() -> None:
    shot = waiting(inside("a", control=True), outside("b", problem="port 2377 is closed"))

    waits = swarm.verdict(shot, CLUSTER).waits

    assert "b: port 2377 is closed" in waits
    assert waits.endswith("must reach each other at the addresses that `phalanx nodes` shows")


def test_whoever_joins_without_a_problem_is_waited_for() -> None:
    shot = waiting(inside("a", control=True), inside("b"), outside("c"), outside("d", problem="x"))

    assert {"c"} == set(swarm.verdict(shot, CLUSTER).joining)
