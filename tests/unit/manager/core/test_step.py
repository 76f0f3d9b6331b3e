from __future__ import annotations

from typing import Any

import pytest

from phalanx_manager.core.lines import MAX_LINE, Lines
from phalanx_manager.core.model import Refusal, SessionRow
from phalanx_manager.core.step import MAX_TASKS, Plan, plan
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.spec import SlurmJob, SlurmPart
from phalanx_wire.step import StepSpec
from tests.support.house import row, with_kernel

PARTS: dict[str, Any] = {
    "tasks_per_node": 2,
    "parts": (SlurmPart(1, "a", None, 2), SlurmPart(2, "b")),
}


def job(state: KernelState = KernelState.RUNNING, **asked: Any) -> SessionRow:
    return row("abc", state, env_profile="slurm", run_on="main", slurm=SlurmJob(**asked))


def hosts(row: SessionRow, **fields: Any) -> list[str]:
    """Where each task runs."""
    found = plan(row, StepSpec(("p",), **fields), 0, 0)
    assert isinstance(found, Plan), found
    assert list(range(len(found.tasks))) == [task.number for task in found.tasks]
    return [task.kernel.host_name for task in found.tasks]


@pytest.mark.parametrize(
    ("asked", "fields", "where"),
    [
        ({}, {}, "main1 sub1 sub2"),
        ({"tasks_per_node": 2}, {}, "main1 main1 sub1 sub1 sub2 sub2"),
        ({"tasks": 4}, {}, "main1 main1 sub1 sub2"),
        ({"tasks": 2}, {}, "main1 sub1"),
        ({}, {"tasks": 4}, "main1 main1 sub1 sub2"),
        ({}, {"tasks": 1}, "main1"),
        ({}, {"containers": 2}, "main1 sub1"),
        ({}, {"containers": 2, "tasks": 4}, "main1 main1 sub1 sub1"),
        ({}, {"per_container": 2, "containers": 1}, "main1 main1"),
        ({"tasks_per_node": 2}, {"containers": 1}, "main1 main1"),
        ({}, {"hosts": ("sub2", "main1")}, "main1 sub2"),
        ({}, {"exclude": ("main1",), "tasks": 1}, "sub1"),
        (PARTS, {}, "main1 main1"),
        (PARTS, {"part": 1}, "sub1 sub2"),
        (PARTS, {"part": 1, "tasks": 3}, "sub1 sub1 sub2"),
        (PARTS, {"more": (StepSpec(("q",), part=1),)}, "main1 main1 sub1 sub2"),
        (PARTS, {"part": 1, "more": (StepSpec(("q",), tasks=1),)}, "sub1 sub2 main1"),
    ],
)
def test_tasks_are_laid_out_as_srun_lays_them_out(
    asked: dict[str, Any], fields: dict[str, Any], where: str
) -> None:
    assert where.split() == hosts(job(**asked), **fields)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"hosts": ("sub9",)}, "no_such_host"),
        ({"containers": 4}, "too_few_containers"),
        ({"exclude": ("main1", "sub1", "sub2")}, "too_few_containers"),
        ({"tasks": 4, "per_container": 1}, "too_many_tasks"),
        ({"tasks": MAX_TASKS + 1}, "bad_tasks"),
        ({"tasks": MAX_TASKS, "env": {"A": "x" * (64 << 10)}}, "step_too_large"),
        ({"tasks": 2, "tty": True}, "tty_of_one"),
        ({"tasks": 2, "containers": -1}, "bad_tasks"),
        ({"cpus": 0}, "bad_tasks"),
        ({"part": 1}, "no_such_part"),
        ({"part": -1}, "no_such_part"),
        ({"more": (StepSpec(("q",)),)}, "part_twice"),
        ({"more": (StepSpec(()),)}, "no_command"),
        ({"more": (StepSpec(("q",), more=(StepSpec(("q",)),)),)}, "more_of_more"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(fields: dict[str, Any], code: str) -> None:
    found = plan(job(), StepSpec(("p",), **fields), 0, 0)

    assert isinstance(found, Refusal)
    assert code == found.code


def test_a_step_needs_a_command_and_containers_that_run() -> None:
    codes = [
        found.code
        for found in (
            plan(job(), StepSpec(()), 0, 0),
            plan(job(KernelState.READY), StepSpec(("p",)), 0, 0),
        )
        if isinstance(found, Refusal)
    ]

    assert ["no_command", "not_running"] == codes


def test_a_script_that_is_quicker_than_the_news_of_the_others_finds_them() -> None:
    others = with_kernel(job(), 1, state=KernelState.MESHED)
    own = with_kernel(job(), 0, state=KernelState.READY)

    assert [["main1", "sub1", "sub2"]] * 2 == [hosts(others), hosts(own)]


def test_tasks_of_several_commands_are_numbered_through_each_with_its_own() -> None:
    other = StepSpec(("q",), env={"A": "2"}, workdir="/v", stdout_file="f", part=1, cpus=3)
    spec = StepSpec(("p",), env={"A": "1"}, workdir="/w", stdout_file="o-0", more=(other,))
    found = plan(job(**PARTS), spec, 0, 0)

    assert isinstance(found, Plan)
    keys = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NODELIST", "A")
    assert [
        ("p", "0", "0", "0", "main1,sub[1-2]", "1"),
        ("p", "1", "1", "0", "main1,sub[1-2]", "1"),
        ("q", "2", "0", "1", "main1,sub[1-2]", "2"),
        ("q", "3", "0", "2", "main1,sub[1-2]", "2"),
    ] == [(one.call.command[-1], *(one.call.env[key] for key in keys)) for one in found.tasks]
    assert [None, None, "3", "3"] == [
        one.call.env.get("SLURM_CPUS_PER_TASK") for one in found.tasks
    ]
    assert {"o-0": "/w", "f": "/v"} == {
        path: call.command[1] for path, (_, call) in found.writers.items()
    }


def test_what_all_tasks_are_told_alike_is_spelled_once() -> None:
    found = plan(job(tasks_per_node=20), StepSpec(("p",), name="one"), 0, 0)
    assert isinstance(found, Plan)
    envs = [task.call.env for task in found.tasks]

    assert 60 == len(envs)
    for name in ("SLURM_JOB_NODELIST", "SLURM_STEP_NODELIST", "SLURM_JOB_CPUS_PER_NODE"):
        assert 1 == len({id(env[name]) for env in envs}), name


def test_a_tasks_place_wins_over_what_was_exported_and_that_over_our_own_idea() -> None:
    env = {"SLURM_PROCID": "9", "OMP_NUM_THREADS": "7"}
    found = plan(job(), StepSpec(("p",), env=env), 0, 0)

    assert isinstance(found, Plan)
    assert [("0", "7"), ("1", "7"), ("2", "7")] == [
        (task.call.env["SLURM_PROCID"], task.call.env["OMP_NUM_THREADS"]) for task in found.tasks
    ]


def test_files_of_ones_own_are_opened_by_the_task_and_shared_ones_by_one_writer() -> None:
    spec = StepSpec(("p", "x"), workdir="/w", stdout_file="o-%t", stderr_file="e")
    found = plan(job(), spec, 0, 1)

    assert isinstance(found, Plan)
    assert ("/w", "", "o-2", "", "p", "x") == found.tasks[2].call.command[1:]
    assert {2: "e"} == found.tasks[2].shared
    writer, call = found.writers["e"]
    assert ("sub1", ("/w", "", "e", "")) == (writer.host_name, call.command[1:])


def test_lines_are_held_until_they_are_whole_and_labelled() -> None:
    lines = Lines(b"3: ")

    assert [b"", b"3: ab\n3: c\n", b"3: d"] == [
        lines.take(b"a"),
        lines.take(b"b\nc\nd"),
        lines.rest(),
    ]


def test_a_line_without_end_is_not_held_for_ever() -> None:
    assert MAX_LINE + 1 == len(Lines().take(b"x" * (MAX_LINE + 1)))
