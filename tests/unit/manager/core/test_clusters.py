"""Clusters: who may use them, what they are, and how one ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from phalanx_manager.core import clusters
from phalanx_manager.core.clusters import Farewell, next_steps
from phalanx_manager.core.model import (
    AgentRecord,
    Cluster,
    Removal,
    SessionRow,
    Snapshot,
    Stop,
    StopCause,
)
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.names import is_cluster_name
from tests.support.house import CLUSTER, NOW, SID, agent, in_swarm, later, observed, row, snapshot
from tests.support.house import with_session as changed

S = KernelState
ENDING = Cluster(CLUSTER, NOW, "root", Removal(NOW, "root"))
FORCED = replace(ENDING, removal=Removal(NOW, "root", force=True))


def house(
    cluster: Cluster, rows: list[SessionRow] | None = None, *records: AgentRecord
) -> Snapshot:
    return replace(snapshot(rows or [], records), clusters={cluster.name: cluster})


@pytest.mark.parametrize("name", ["a", "my-byoc-cluster-01", "7", "a" * 63])
def test_a_name_is_lower_case_with_single_hyphens_inside(name: str) -> None:
    assert is_cluster_name(name)


@pytest.mark.parametrize(
    "name", ["", "A", "a--b", "-a", "a-", "a_b", "a" * 64, "a\n", "ä", "a b", "a/b"]
)
def test_anything_else_names_no_cluster(name: str) -> None:
    assert not is_cluster_name(name)


def test_a_cluster_that_is_not_there_or_ends_takes_nothing() -> None:
    unknown = clusters.closed({CLUSTER: Cluster(CLUSTER)}, "elsewhere")
    ending = clusters.closed({CLUSTER: ENDING}, CLUSTER)

    assert unknown is not None
    assert (422, "there is no cluster elsewhere") == (unknown.status, unknown.title)
    assert CLUSTER in unknown.hint
    assert ending is not None
    assert (409, "cluster_deleting") == (ending.status, ending.code)
    assert None is clusters.closed({CLUSTER: Cluster(CLUSTER)}, CLUSTER)


@pytest.mark.parametrize(
    ("cluster", "records", "state"),
    [
        (Cluster(CLUSTER), [], "creating"),
        (Cluster(CLUSTER), [agent("a"), agent("b", lost=True)], "running"),
        (Cluster(CLUSTER), [agent("b", lost=True)], "unavailable"),
        (ENDING, [agent("a")], "deleting"),
        (replace(ENDING, removed_at=NOW), [], "deleted"),
    ],
)
def test_what_a_cluster_is_follows_from_its_agents(
    cluster: Cluster, records: list[AgentRecord], state: str
) -> None:
    view = clusters.view(house(cluster, [], *records), cluster, NOW)

    assert state == view.state
    assert (view.reason is None) is (state in ("running", "deleted"))


def test_nothing_is_next_while_nothing_is_removed() -> None:
    assert clusters.Steps() == next_steps(house(Cluster(CLUSTER), [row("a")], agent("a")), NOW)


def test_first_its_sessions_end_and_no_agent_is_asked_to_leave() -> None:
    seen = house(ENDING, [row("a", S.RUNNING)], agent("a"))
    steps = next_steps(seen, NOW)

    text = f"cluster {CLUSTER} is removed by root"
    assert ((SID, Stop(StopCause.USER, text, NOW, then="end")),) == steps.stops
    assert ((), ()) == (steps.farewells, steps.over)
    assert not clusters.shall_leave(seen, AgentId("a"))


def test_a_session_that_is_told_to_end_is_not_told_again() -> None:
    stop = Stop(StopCause.USER, "", NOW, then="end")
    one = changed(row("a", S.RUNNING), stop=stop)

    assert () == next_steps(house(ENDING, [one], agent("a")), NOW).stops


def test_an_agent_that_holds_nothing_is_to_leave_and_is_forgotten_when_it_has() -> None:
    a = AgentId("a")
    there, gone = observed("a"), msgspec.structs.replace(observed("a"), left=True)
    waits = house(ENDING, [], agent("a", there))
    left = house(ENDING, [], agent("a", gone))

    assert clusters.shall_leave(waits, a)
    assert {a} == clusters.leaving(waits)
    assert () == next_steps(waits, NOW).farewells
    assert (Farewell(a, CLUSTER, clean=True),) == next_steps(left, NOW).farewells
    assert () == next_steps(left, NOW).over
    assert (CLUSTER,) == next_steps(house(ENDING), NOW).over


def test_the_last_engine_of_a_swarm_leaves_when_no_other_is_left_to_wait_for() -> None:
    def told(cluster: Cluster, other: AgentRecord, last: AgentRecord) -> list[bool]:
        seen = house(cluster, [], other, last)
        return [clusters.shall_leave(seen, one.name) for one in (other, last)]

    a, b = agent("a", in_swarm("a")), agent("b", in_swarm("b"))
    gone = agent("a", msgspec.structs.replace(in_swarm("a"), left=True))

    assert [True, False] == told(ENDING, a, b)
    assert [True, False] == told(ENDING, a, agent("b"))  # it may be about to enter
    assert [True, True] == told(ENDING, agent("a"), agent("b"))
    assert [True, True] == told(ENDING, gone, b)
    assert [True, False] == told(ENDING, replace(a, connected=False), b)
    assert [True, True] == told(FORCED, replace(a, connected=False), b)
    assert [True, True] == told(ENDING, replace(a, connected=False, lost=True), b)


def test_what_was_placed_on_an_agent_as_it_left_is_given_up() -> None:
    gone = msgspec.structs.replace(observed("a"), left=True)
    first = next_steps(house(ENDING, [row("a", S.ASSIGNED)], agent("a", gone)), NOW)
    second = next_steps(house(ENDING, [row("a", S.LOST)], agent("a", gone)), NOW)

    ((message, state),) = [(one.after.message, one.after.state) for one in first.let_go.kernels]
    assert ("its agent has left its host, and its cluster is being removed", S.LOST) == (
        message,
        state,
    )
    assert [True] == [change.after.released for change in first.let_go.networks]
    assert [S.REMOVED] == [change.after.state for change in second.let_go.kernels]
    assert ((), ()) == (first.farewells, second.farewells)


def test_a_removal_waits_for_an_agent_that_is_away_and_names_it() -> None:
    seen = house(ENDING, [row("a", S.RUNNING)], agent("a", connected=False, seen_at=later(-60)))
    steps = next_steps(seen, NOW)
    view = clusters.view(seen, ENDING, NOW)

    assert ((), (), ()) == (steps.farewells, steps.over, steps.let_go.kernels)
    assert view.reason is not None
    assert "away: a (silent for 60 s)" in view.reason
    assert "--force" in view.reason


def test_by_force_who_is_away_is_given_up_and_what_stays_is_said() -> None:
    away: dict[str, Any] = {"connected": False}
    first = next_steps(house(FORCED, [row("a", S.RUNNING)], agent("a", **away)), NOW)
    second = next_steps(house(FORCED, [row("a", S.LOST)], agent("a", **away)), NOW)
    third = next_steps(house(FORCED, [], agent("a", **away)), NOW)

    (said,) = first.abandoned[CLUSTER]
    assert said.startswith(f"on a: containers phx-{SID}-1-main1; networks phx-{SID}-1; ")
    assert [S.LOST] == [change.after.state for change in first.let_go.kernels]
    assert [S.REMOVED] == [change.after.state for change in second.let_go.kernels]
    assert [True] == [change.after.released for change in second.let_go.networks]
    assert (Farewell(AgentId("a"), CLUSTER, clean=False),) == third.farewells


def test_an_engine_that_stays_in_a_swarm_is_among_what_is_left_behind() -> None:
    member = agent("a", connected=False, observed=in_swarm("a"))
    (said,) = next_steps(house(FORCED, [], member), NOW).abandoned[CLUSTER]

    assert said.startswith("on a: its engine's membership in the swarm; the network phx-egress; ")


def test_by_force_who_is_there_still_takes_all_away() -> None:
    seen = house(FORCED, [], agent("a"))

    assert clusters.Steps() == next_steps(seen, NOW)
    assert clusters.shall_leave(seen, AgentId("a"))


def test_what_is_noted_of_a_host_is_not_said_again() -> None:
    noted = replace(FORCED, leaves=("on a: all",))

    assert {} == next_steps(house(noted, [], agent("a", connected=False)), NOW).abandoned
