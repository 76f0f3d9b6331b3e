"""Goals: barriers, ends, keys, devices, networks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phalanx_manager.core import goals
from phalanx_manager.core.model import SessionRow, Stop, StopCause
from phalanx_manager.core.session import settle
from phalanx_wire.control import Goals
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.spec import Resources
from tests.support.house import (
    NOW,
    agent,
    observed,
    row,
    snapshot,
    with_kernel,
    with_session,
)

S = KernelState
A, B = AgentId("a"), AgentId("b")


def told(one: SessionRow, agent: AgentId = A) -> Goals:
    return goals.for_agent([one], agent, None, goals.Reached())


@pytest.mark.parametrize(
    ("states", "goal"),
    [
        ([S.ASSIGNED, S.ASSIGNED], S.CREATED),
        ([S.CREATED, S.PREPARING], S.CREATED),
        ([S.CREATED, S.CREATED], S.READY),
        ([S.STARTING, S.CREATED], S.READY),
        ([S.READY, S.STARTING], S.READY),
        ([S.READY, S.READY], S.MESHED),
        ([S.MESHED, S.READY], S.MESHED),
        ([S.MESHED, S.MESHED], S.RUNNING),
        ([S.RUNNING, S.MESHED], S.RUNNING),
        ([S.RUNNING, S.RUNNING], S.RUNNING),
    ],
)
def test_a_gang_gets_the_first_barrier_that_its_slowest_has_not_reached(
    states: list[KernelState], goal: KernelState
) -> None:
    one = row("ab", states)
    one = replace(one, session=settle(one.session, one.kernels, NOW))

    assert [goal, goal] == [goals.goal(one, kernel, goals.barrier(one)) for kernel in one.kernels]


def test_a_gang_of_one_is_told_to_run_at_once() -> None:
    one = row("a", S.ASSIGNED)

    assert S.RUNNING is goals.goal(one, one.kernels[0], goals.barrier(one))


@pytest.mark.parametrize(
    ("state", "begun"), [(S.CREATED, [False]), (S.MESHED, [True]), (S.RUNNING, [True])]
)
def test_of_a_gang_that_was_whole_once_is_said_that_it_may_have_run(
    state: KernelState, begun: list[bool]
) -> None:
    one = row("ab", state)
    one = replace(one, session=settle(one.session, one.kernels, NOW))

    assert begun == [kernel.begun for kernel in told(one).kernels]


def test_a_stopped_session_stops_who_lives_and_removes_who_has_ended() -> None:
    one = row("ab", [S.RUNNING, S.EXITED], command=("x",))
    one = with_session(one, stop=Stop(StopCause.USER, "", NOW, grace_s=2))
    assignments = told(one).kernels

    assert (S.STOPPED, 2.0) == (assignments[0].goal, assignments[0].grace_s)
    assert S.REMOVED is goals.goal(one, one.kernels[1], goals.barrier(one))


def test_what_was_given_up_is_to_be_removed_when_its_agent_is_back() -> None:
    one = row("ab", [S.RUNNING, S.LOST])

    assert S.REMOVED is told(one, B).kernels[0].goal


def test_who_is_removed_is_not_named_any_more() -> None:
    assert () == told(row("ab", [S.REMOVED, S.RUNNING])).kernels


def test_keys_travel_once_all_are_created() -> None:
    one = with_kernel(row("ab", [S.CREATED, S.PREPARING]), 0, host_key="H0", user_key="U0")
    before = told(one).gangs[0].members
    after = told(with_kernel(one, 1, state=S.CREATED, host_key="H1", user_key="U1"))

    assert [("", ""), ("", "")] == [(m.host_key, m.user_key) for m in before]
    assert [("H0", "U0"), ("H1", "U1")] == [
        (m.host_key, m.user_key) for m in after.gangs[0].members
    ]


def test_only_main_runs_the_command_and_checks_the_port_where_main_is_asked_to() -> None:
    one = row("aa", run_on="main", command=("mpirun", "x"))
    main, sub = told(one).kernels

    assert (("mpirun", "x"), False, 12345) == (main.command, main.idle, main.master_port)
    assert ((), True, 0) == (sub.command, sub.idle, sub.master_port)


def with_devices(profile: str) -> SessionRow:
    one = row("aab", env_profile=profile, resources=Resources(gpu=1))
    for rank, device in enumerate(("g0", "g1", "g0")):
        one = with_kernel(one, rank, gpus=(device,))
    return one


def test_under_default_a_container_sees_the_devices_of_all_on_its_host() -> None:
    assert [("g0", "g1"), ("g0", "g1")] == [k.gpus for k in told(with_devices("default")).kernels]
    assert [("g0",)] == [k.gpus for k in told(with_devices("default"), B).kernels]


def test_under_other_profiles_a_container_sees_its_own_devices() -> None:
    assert [("g0",), ("g1",)] == [k.gpus for k in told(with_devices("node")).kernels]


def test_an_ended_kernel_keeps_its_devices_while_a_neighbour_still_sees_them() -> None:
    one = with_devices("default")
    ended = {"state": S.EXITED, "ended_as": S.EXITED, "exit_code": 0}
    half = with_kernel(with_kernel(one, 0, **ended), 1, state=S.RUNNING)
    whole = with_kernel(half, 1, **ended)

    assert S.STOPPED is goals.goal(half, half.kernels[0], goals.barrier(half))
    assert S.REMOVED is goals.goal(whole, whole.kernels[0], goals.barrier(whole))


def test_the_owner_makes_the_network_and_removes_it_when_nobody_is_left() -> None:
    living = told(row("ab", S.RUNNING)).networks
    over = told(row("ab", S.REMOVED)).networks

    assert [True] == [goal.present for goal in living]
    assert [False] == [goal.present for goal in over]
    assert () == told(row("ab", S.RUNNING), B).networks


def test_a_released_network_is_not_named_any_more() -> None:
    one = row("ab", S.REMOVED)
    assert one.session.network is not None
    gone = with_session(one, network=replace(one.session.network, released=True))

    assert () == told(gone).networks


def test_a_waiting_session_gives_nobody_goals() -> None:
    nothing = told(row([None, None], S.PENDING))

    assert ((), (), ()) == (nothing.gangs, nothing.kernels, nothing.networks)


def test_every_address_of_every_host_is_guarded() -> None:
    report = observed(address="192.0.2.1", addresses=("192.0.2.1", "198.51.100.7"))

    known = snapshot(records=[agent("a", report), agent("b", None)])
    found = goals.Reached.of(known, ("192.0.2.9",)).guarded

    assert {"192.0.2.1", "198.51.100.7", "192.0.2.9"} <= found


@pytest.mark.parametrize("profile", ["default", "slurm"])
def test_what_all_ranks_are_told_alike_is_spelled_once(profile: str) -> None:
    one = row("a" * 30 + "b" * 30, env_profile=profile)
    memo = goals.Memo()
    both = [goals.for_agent([one], agent, None, goals.Reached(), memo) for agent in (A, B)]
    envs = [kernel.env for each in both for kernel in each.kernels]
    names = ["BACKENDAI_CLUSTER_HOSTS", "BACKENDAI_CLUSTER_REPLICAS"]
    names += ["SLURM_JOB_NODELIST", "SLURM_JOB_CPUS_PER_NODE"] if profile == "slurm" else []

    assert 60 == len(envs)
    for name in names:
        assert 1 == len({id(env[name]) for env in envs}), name

    memo.forget_all_but([])
    assert 0 == len(memo)
