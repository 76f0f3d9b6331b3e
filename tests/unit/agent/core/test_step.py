"""The planner, by a model of the world that forgets at every line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx_agent.core.seen import (
    Absent,
    Asked,
    Created,
    Ended,
    Failure,
    Noted,
    Runner,
    Running,
    Seen,
)
from phalanx_agent.core.step import Needs, Op, next_op
from phalanx_wire.lifecycle import KernelState as S

ID = "c" * 64
MOST = 40


def do(seen: Seen, op: Op) -> Seen:
    """What the world is after an operation, with a runner that does as it is told at once."""
    asked, runner = seen.asked, seen.runner
    match op:
        case Op.MAKE_MATERIAL:
            return replace(seen, material=True)
        case Op.GET_IMAGE:
            return replace(seen, image=True)
        case Op.CREATE:
            return replace(seen, container=Created(ID))
        case Op.FILL:
            return replace(seen, filled=True)
        case Op.TRUST:
            return replace(seen, trusted=True)
        case Op.MARK:
            return replace(seen, marked=True)
        case Op.START:
            ready = Runner(heard=True, ready=True)
            return replace(seen, container=Running(ID), connected=True, runner=ready)
        case Op.CONNECT:
            return replace(seen, outside=True)
        case Op.MESH:
            return replace(
                seen, asked=replace(asked, mesh=True), runner=replace(runner, meshed=True)
            )
        case Op.RELEASE:
            return replace(
                seen, asked=replace(asked, release=True), runner=replace(runner, released=True)
            )
        case Op.DISMISS:
            return replace(seen, container=Ended(ID, 0), connected=False)
        case Op.STOP:
            return replace(seen, asked=replace(asked, stop=True, overdue=True))
        case Op.KILL:
            return replace(seen, container=Ended(ID, 137), connected=False)
        case Op.KEEP_LOGS:
            return replace(seen, kept=True)
        case Op.REMOVE_CONTAINER:
            return replace(seen, container=Absent(), connected=False)
        case Op.CLEAR:
            return replace(seen, material=False, marked=False)
        case Op.NOTIFY:
            return replace(seen, noted=Noted(notices={"limit": 0}), notified=frozenset({"limit"}))
        case Op.PING:
            return replace(seen, asked=replace(asked, ping=True))


def restarted(seen: Seen) -> Seen:
    """What a new process finds: what lies on the host, and what the runner repeats."""
    return Seen(
        container=seen.container,
        marked=seen.marked,
        material=seen.material,
        network=seen.network,
        kept=seen.kept,
        connected=seen.connected,
        runner=seen.runner if seen.connected else Runner(),
    )


def run(goal: S, seen: Seen, needs: Needs) -> tuple[list[Op], Seen]:
    ops: list[Op] = []
    while (op := next_op(goal, seen, needs)) is not None:
        ops.append(op)
        seen = do(seen, op)
        assert len(ops) < MOST, ops
    return ops, seen


WAY_UP = [
    Op.GET_IMAGE,
    Op.MAKE_MATERIAL,
    Op.CREATE,
    Op.FILL,
    Op.TRUST,
    Op.MARK,
    Op.START,
    Op.MESH,
    Op.CONNECT,
    Op.RELEASE,
]
UPLOAD = Needs(upload=True, outside=True)
READY_TO_MAKE = Seen(network=True)


def test_the_way_to_running_is_one_line() -> None:
    ops, seen = run(S.RUNNING, READY_TO_MAKE, UPLOAD)

    assert WAY_UP == ops
    assert seen.runner.released


@pytest.mark.parametrize(("goal", "last"), [(S.CREATED, Op.FILL), (S.MESHED, Op.CONNECT)])
def test_a_barrier_ends_the_way_up_there(goal: S, last: Op) -> None:
    ops, _ = run(goal, READY_TO_MAKE, UPLOAD)

    assert WAY_UP[: WAY_UP.index(last) + 1] == ops


@pytest.mark.parametrize("dies_after", range(len(WAY_UP) + 1))
def test_an_agent_that_dies_after_any_operation_is_carried_on_from_what_it_left(
    dies_after: int,
) -> None:
    seen = READY_TO_MAKE
    for op in WAY_UP[:dies_after]:
        seen = do(seen, op)

    ops, end = run(S.RUNNING, restarted(seen), UPLOAD)

    # Done anew, where the process that had done it is gone:
    again = {Op.GET_IMAGE, Op.FILL, Op.TRUST, Op.CONNECT}
    assert [op for op in WAY_UP[dies_after:] if op not in again] == [
        op for op in ops if op not in again
    ]
    assert end.runner.released


@pytest.mark.parametrize("dies_after", range(len(WAY_UP) + 1))
@pytest.mark.parametrize("restart", [False, True])
def test_from_everywhere_on_the_way_up_removal_leaves_nothing(
    dies_after: int, *, restart: bool
) -> None:
    seen = READY_TO_MAKE
    for op in WAY_UP[:dies_after]:
        seen = do(seen, op)
    if restart:
        seen = restarted(seen)

    _, end = run(S.REMOVED, seen, UPLOAD)

    assert Absent() == end.container
    assert not end.material
    assert not end.marked


def _way_down(seen: Seen) -> list[Op]:
    return run(S.REMOVED, seen, Needs())[0]


RUNNING = run(S.RUNNING, READY_TO_MAKE, Needs())[1]
WAY_DOWN = [Op.STOP, Op.KILL, Op.KEEP_LOGS, Op.REMOVE_CONTAINER, Op.CLEAR]


@pytest.mark.parametrize("dies_after", range(len(WAY_DOWN) + 1))
def test_an_agent_that_dies_on_the_way_down_goes_on_there(dies_after: int) -> None:
    assert WAY_DOWN == _way_down(RUNNING)
    seen = RUNNING
    for op in WAY_DOWN[:dies_after]:
        seen = do(seen, op)

    ops = _way_down(restarted(seen))

    repeated = [Op.STOP] if dies_after == 1 else []
    assert repeated + WAY_DOWN[dies_after:] == ops


def test_a_container_that_was_started_once_is_never_made_again() -> None:
    gone = Seen(marked=True, material=True, image=True, network=True)

    assert next_op(S.RUNNING, gone, Needs()) is None


def test_a_container_that_the_engine_could_not_start_is_not_started_again() -> None:
    seen = Seen(container=Created(ID, "no such device"), marked=True, material=True)

    assert next_op(S.RUNNING, seen, Needs()) is None


def test_nothing_starts_before_the_peers_keys_are_known() -> None:
    seen = Seen(container=Created(ID), material=True)

    assert next_op(S.READY, seen, Needs(peers=False)) is None


def test_nothing_is_made_before_the_network_is_there() -> None:
    assert next_op(S.CREATED, Seen(material=True, image=True), Needs()) is None


def test_a_created_container_goes_when_its_session_is_stopped() -> None:
    seen = Seen(container=Created(ID), material=True)

    assert Op.REMOVE_CONTAINER == next_op(S.STOPPED, seen, Needs())


def test_an_ended_container_stays_until_its_end_is_known_to_be_stored() -> None:
    seen = Seen(container=Ended(ID, 3), marked=True, material=True)

    assert next_op(S.STOPPED, seen, Needs()) is None
    assert Op.KEEP_LOGS == next_op(S.REMOVED, seen, Needs())


def test_a_runner_that_reached_not_all_peers_is_ended() -> None:
    runner = Runner(heard=True, ready=True, failure=Failure("mesh-failed", "sub1"))
    seen = Seen(container=Running(ID), connected=True, runner=runner)

    assert Op.STOP == next_op(S.MESHED, seen, Needs())


def test_a_failed_command_is_left_to_end_by_itself() -> None:
    runner = Runner(heard=True, ready=True, meshed=True, released=True)
    runner = replace(runner, failure=Failure("start-failed", "no such file"))
    seen = Seen(container=Running(ID), connected=True, runner=runner)

    assert next_op(S.RUNNING, seen, Needs()) is None


def test_a_lingering_runner_is_dismissed_once() -> None:
    runner = Runner(heard=True, ready=True, meshed=True, released=True, exited=0)
    seen = Seen(container=Running(ID), connected=True, runner=runner)

    assert Op.DISMISS == next_op(S.RUNNING, seen, Needs())
    assert next_op(S.RUNNING, replace(seen, asked=Asked(dismiss=True)), Needs()) is None


def test_the_way_out_is_attached_while_the_gang_gets_ready() -> None:
    ops, _ = run(S.READY, READY_TO_MAKE, UPLOAD)

    assert [Op.START, Op.CONNECT] == ops[-2:]


def test_nothing_of_the_users_runs_before_the_way_out_is_attached() -> None:
    runner = Runner(heard=True, ready=True, meshed=True)
    seen = Seen(container=Running(ID), connected=True, runner=runner)

    assert Op.CONNECT == next_op(S.RUNNING, seen, Needs(outside=True))


def test_a_silent_runner_is_waited_for() -> None:
    assert next_op(S.RUNNING, Seen(container=Running(ID)), Needs()) is None


def test_a_refused_kernel_is_not_tried_again() -> None:
    assert next_op(S.RUNNING, replace(READY_TO_MAKE, refused="no such image"), Needs()) is None


worlds = st.builds(
    Seen,
    container=st.sampled_from(
        [Absent(), Created(ID), Created(ID, "broken"), Running(ID), Ended(ID, 1)]
    ),
    runner=st.builds(
        Runner,
        ready=st.booleans(),
        meshed=st.booleans(),
        released=st.booleans(),
        exited=st.sampled_from([None, 0]),
        failure=st.sampled_from([None, Failure("mesh-failed", "sub1")]),
    ),
    asked=st.builds(Asked),
    refused=st.sampled_from(["", "no"]),
    **dict.fromkeys(
        ("marked", "material", "image", "network", "filled", "trusted", "outside", "kept"),
        st.booleans(),
    ),
    connected=st.booleans(),
)
goals = st.sampled_from([S.CREATED, S.READY, S.MESHED, S.RUNNING, S.STOPPED, S.REMOVED])


@given(seen=worlds, goal=goals, upload=st.booleans())
def test_whatever_is_found_the_planner_comes_to_rest(seen: Seen, goal: S, *, upload: bool) -> None:
    _, end = run(goal, seen, Needs(upload=upload, outside=True))

    if goal is S.REMOVED:
        assert (Absent(), False, False) == (end.container, end.material, end.marked)


@given(seen=worlds, goal=goals)
def test_a_container_is_made_only_where_none_was_ever_started(seen: Seen, goal: S) -> None:
    ops, _ = run(goal, seen, Needs())

    if seen.marked or not isinstance(seen.container, Absent):
        assert Op.CREATE not in ops
