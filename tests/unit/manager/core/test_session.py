"""The fold: every joint state that a gang can reach, and the outcomes by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import msgspec
import pytest

from phalanx_manager.core import attempts, goals
from phalanx_manager.core.model import Kernel, Session, SessionRow, Stop, StopCause
from phalanx_manager.core.observe import moved
from phalanx_manager.core.session import STEPS, settle
from phalanx_wire.api import ENDED_STATES, SessionState
from phalanx_wire.lifecycle import TRANSITIONS, KernelState, Owner
from tests.support.house import NOW, later, row, with_kernel

S = KernelState
RunOn = Literal["all", "main"]
OnFailure = Literal["stop-all", "continue"]
Kind = Literal["batch", "interactive"]


def steps_of(one: SessionRow, kernel: Kernel) -> Iterator[Kernel]:
    """All that an agent or the judge of silence may make of a kernel now."""
    goal = goals.goal(one, kernel, goals.barrier(one))
    for (before, after), owner in TRANSITIONS.items():
        if before is not kernel.state or owner is Owner.SCHEDULER:
            continue
        if after is S.REMOVED or (after <= S.RUNNING and after > goal):
            continue  # nobody runs ahead of the goal; REMOVED changes no outcome
        if after in (S.STOPPING, S.STOPPED) and goal is not S.STOPPED:
            continue  # only who is told to stop is stopped
        stepped = moved(kernel, (after,), NOW)
        if after is S.EXITED:
            for code in (0, 1):
                yield replace(stepped, exit_code=code, cause="exited")
        else:
            yield stepped


def futures(one: SessionRow) -> Iterator[SessionRow]:
    """All that may happen next to a session, before it is folded."""
    session, kernels = one.session, one.kernels
    if session.state in ENDED_STATES:
        return
    if all(kernel.state is S.PENDING for kernel in kernels):
        yield SessionRow(session, tuple(moved(k, (S.ASSIGNED,), NOW) for k in kernels))
        cancelled = tuple(moved(k, (S.STOPPED,), NOW) for k in kernels)
        yield SessionRow(replace(session, stop=Stop(StopCause.USER, "", NOW)), cancelled)
        return
    if session.stop is None:
        causes = [StopCause.USER, StopCause.REQUEUE]
        if session.started_at is not None:
            causes.append(StopCause.TIME_LIMIT)
        if any(kernel.state < S.RUNNING for kernel in kernels):
            causes.append(StopCause.DEADLINE)
        for cause in causes:
            yield SessionRow(replace(session, stop=Stop(cause, "", NOW)), kernels)
    for rank, kernel in enumerate(kernels):
        for stepped in steps_of(one, kernel):
            yield SessionRow(session, (*kernels[:rank], stepped, *kernels[rank + 1 :]))


def key(one: SessionRow) -> tuple[object, ...]:
    session = one.session
    return (
        session.state,
        session.stop and session.stop.cause,
        session.failed_rank,
        session.started_at,
        tuple((k.state, k.ended_as, k.exit_code) for k in one.kernels),
    )


def check_next_attempt(one: SessionRow) -> None:
    """An attempt that has ended is followed by a fresh one or by none; none runs beside it."""
    if one.session.state not in ENDED_STATES:
        return
    assert all(kernel.ended for kernel in one.kernels)
    spec = msgspec.structs.replace(one.session.spec, requeue=True, max_attempts=2)
    asked = replace(one.session, spec=spec)
    onward = attempts.onward(asked, one.kernels, NOW)
    if onward.attempt == asked.attempt:
        stop = one.session.stop
        assert one.session.state == "succeeded" or (stop and stop.cause is StopCause.USER)
        assert onward.state == asked.state
        return
    kernels = attempts.fresh(onward.id, onward.attempt, one.kernels, NOW)
    assert onward == settle(onward, kernels, NOW)
    assert ("pending", False) == (onward.state, any(kernel.holds for kernel in kernels))


def walk(start: SessionRow) -> tuple[int, set[tuple[SessionState, SessionState]]]:
    seen, todo = {key(start)}, [start]
    edges: set[tuple[SessionState, SessionState]] = set()
    while todo:
        one = todo.pop()
        for future in futures(one):
            folded = SessionRow(settle(future.session, future.kernels, NOW), future.kernels)
            assert folded.session == settle(folded.session, folded.kernels, later(1))
            check_next_attempt(folded)
            if one.session.state != folded.session.state:
                edges.add((one.session.state, folded.session.state))
            if key(folded) not in seen:
                seen.add(key(folded))
                todo.append(folded)
    return len(seen), edges


def allowed() -> set[tuple[SessionState, SessionState]]:
    return {(before, after) for before, afters in STEPS.items() for after in afters}


def test_every_joint_state_of_any_gang_folds_to_steps_of_the_table_and_to_all_of_them() -> None:
    edges: set[tuple[SessionState, SessionState]] = set()
    states = 0
    shapes: list[tuple[int, RunOn, OnFailure, Kind]] = [
        (1, "all", "stop-all", "batch"),
        (2, "all", "continue", "batch"),
        (2, "main", "continue", "batch"),
        (2, "all", "stop-all", "interactive"),
        (3, "all", "stop-all", "batch"),
    ]
    for size, run_on, on_failure, kind in shapes:
        start = row(
            [None] * size,
            S.PENDING,
            run_on=run_on,
            on_failure=on_failure,
            kind=kind,
            command=("true",) if kind == "batch" else (),
        )
        count, found = walk(start)
        states += count
        edges |= found

    assert allowed() == edges
    print(f"{states} joint states, {len(edges)} steps of a session")


def folded(one: SessionRow) -> Session:
    return settle(one.session, one.kernels, NOW)


def ended(code: int | None, **fields: object) -> dict[str, object]:
    return {"state": S.EXITED, "ended_as": S.EXITED, "exit_code": code, **fields}


def test_all_commands_that_end_with_zero_make_a_success() -> None:
    one = with_kernel(row("ab", S.RUNNING), 0, **ended(0))
    session = folded(with_kernel(one, 1, **ended(0)))

    assert ("succeeded", 0, "") == (session.state, session.exit_code, session.reason)


def test_one_command_that_ends_with_zero_leaves_the_others_running() -> None:
    session = folded(with_kernel(row("ab", S.RUNNING), 0, **ended(0)))

    assert ("running", None) == (session.state, session.stop)


def test_the_first_failure_stops_all_and_gives_the_session_its_code_and_reason() -> None:
    one = with_kernel(row("ab", S.RUNNING), 1, **ended(3))
    stopping = folded(one)
    over = with_kernel(replace(one, session=stopping), 0, state=S.STOPPED, ended_as=S.STOPPED)
    session = folded(over)

    assert "stopping" == stopping.state
    assert ("failed", 3) == (session.state, session.exit_code)
    assert "rank 1 (sub1) on agent b exited with code 3" == session.reason


def test_with_continue_the_others_run_on_and_the_session_fails_with_the_first_code() -> None:
    one = with_kernel(row("ab", S.RUNNING, on_failure="continue"), 1, **ended(3))
    running = folded(one)
    session = folded(with_kernel(replace(one, session=running), 0, **ended(4)))

    assert ("running", None) == (running.state, running.stop)
    assert ("failed", 3) == (session.state, session.exit_code)


def test_continue_does_not_tolerate_who_never_ran() -> None:
    one = row("ab", [S.MESHED, S.READY], on_failure="continue")
    session = folded(with_kernel(one, 1, state=S.LOST, ended_as=S.LOST, cause="lost"))

    assert session.stop is not None
    assert StopCause.KERNEL_FAILED is session.stop.cause


@pytest.mark.parametrize("code", [0, 1, None])
@pytest.mark.parametrize("before", [S.READY, S.MESHED])
def test_who_ends_before_the_gang_was_whole_lets_nobody_run(
    before: KernelState, code: int | None
) -> None:
    one = row("abc", [S.READY, before, S.MESHED], on_failure="continue")
    over = with_kernel(with_kernel(one, 1, **ended(code)), 0, state=S.MESHED)
    session = folded(over)

    assert session.stop is not None
    assert (StopCause.KERNEL_FAILED, 1, None) == (
        session.stop.cause,
        session.stop.rank,
        session.started_at,
    )
    assert S.MESHED is goals.barrier(over)


def test_a_gang_that_was_whole_is_told_to_run_whoever_has_ended_since() -> None:
    one = row("ab", S.MESHED, on_failure="continue")
    over = with_kernel(replace(one, session=folded(one)), 1, **ended(3))
    over = replace(over, session=folded(over))

    assert over.session.stop is None
    assert S.RUNNING is goals.goal(over, over.kernels[0], goals.barrier(over))


def test_continue_does_not_tolerate_a_command_that_could_not_be_begun() -> None:
    one = row("ab", S.RUNNING, on_failure="continue")
    session = folded(with_kernel(one, 1, **ended(127, cause="start-failed")))

    assert session.stop is not None
    assert 1 == session.stop.rank


def test_main_decides_where_only_main_runs_the_command() -> None:
    one = with_kernel(row("ab", S.RUNNING, run_on="main"), 0, **ended(0))
    stopping = folded(one)
    over = with_kernel(replace(one, session=stopping), 1, state=S.STOPPED, ended_as=S.STOPPED)
    session = folded(over)

    assert "stopping" == stopping.state
    assert ("succeeded", 0) == (session.state, session.exit_code)


def test_main_failing_is_the_sessions_failure_with_mains_code() -> None:
    one = with_kernel(row("ab", S.RUNNING, run_on="main"), 0, **ended(7))
    stopping = folded(one)
    over = with_kernel(replace(one, session=stopping), 1, state=S.STOPPED, ended_as=S.STOPPED)
    session = folded(over)

    assert ("failed", 7) == (session.state, session.exit_code)


def test_a_container_that_idles_and_ends_by_itself_has_failed() -> None:
    session = folded(with_kernel(row("a", S.RUNNING, command=()), 0, **ended(0)))

    assert ("failed", "rank 0 (main1) on agent a exited with code 0") == (
        session.state,
        session.reason,
    )


def test_who_ends_before_the_others_could_start_has_failed_even_with_zero() -> None:
    session = folded(with_kernel(row("ab", [S.STARTING, S.CREATED]), 0, **ended(0)))

    assert session.stop is not None
    assert ("stopping", 0) == (session.state, session.stop.rank)


def test_a_network_that_cannot_be_made_ends_the_session_with_its_problem() -> None:
    one = row("ab", S.PREPARING)
    assert one.session.network is not None
    broken = replace(one.session.network, failed=True, problem="no space for another network")
    session = folded(replace(one, session=replace(one.session, network=broken)))

    assert "stopping" == session.state
    assert session.stop is not None
    assert "its network could not be made by agent a: no space for another network" == (
        session.stop.text
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (ended(137, cause="exited"), "exited with code 137 (SIGKILL)"),
        (
            ended(137, cause="oom"),
            "ran out of memory (its limit is 2 GiB) and exited with code 137",
        ),
        (ended(143, cause="engine-restart"), "ended because the engine of its host restarted"),
        (
            ended(None, cause="exited", message="Its container was removed by someone else."),
            "has exited: Its container was removed by someone else.",
        ),
        (ended(None, cause="exited"), "ended and its exit code is not known"),
        (
            {
                "state": S.REJECTED,
                "ended_as": S.REJECTED,
                "cause": "refused",
                "message": "there is no image busybox:nope",
            },
            "could not be started: there is no image busybox:nope",
        ),
        (
            {
                "state": S.LOST,
                "ended_as": S.LOST,
                "cause": "lost",
                "message": "its agent has been silent for 301 s",
            },
            "is lost: its agent has been silent for 301 s",
        ),
        (
            ended(1, cause="mesh-failed", message="sub1 did not reach main1 on port 2200"),
            "has exited: sub1 did not reach main1 on port 2200",
        ),
    ],
)
def test_a_failure_is_told_with_rank_host_name_agent_and_cause(
    fields: dict[str, object], sentence: str
) -> None:
    session = folded(with_kernel(row("a", S.RUNNING), 0, **fields))

    assert session.reason.startswith(f"rank 0 (main1) on agent a {sentence}")


@pytest.mark.parametrize(
    ("cause", "state", "code"),
    [
        (StopCause.USER, "cancelled", 130),
        (StopCause.TIME_LIMIT, "timeout", 124),
        (StopCause.DEADLINE, "failed", 125),
    ],
)
def test_a_stop_gives_its_own_outcome(cause: StopCause, state: str, code: int) -> None:
    one = row("a", S.RUNNING)
    stopped = replace(one.session, stop=Stop(cause, "because", NOW))
    over = with_kernel(replace(one, session=stopped), 0, state=S.STOPPED, ended_as=S.STOPPED)
    session = folded(over)

    assert (state, code, "because") == (session.state, session.exit_code, session.reason)
