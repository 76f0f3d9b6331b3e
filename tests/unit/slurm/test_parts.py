"""Jobs of several parts (`hetjob`), each with a command of its own in one step."""

from __future__ import annotations

import msgspec
import pytest

from phalanx_slurm.accounting import FIELDS, entries
from phalanx_slurm.batch import Site, batch, with_all_memory
from phalanx_slurm.jobs import job
from phalanx_slurm.options import SBATCH
from phalanx_slurm.request import request
from phalanx_slurm.script import Script, read
from phalanx_slurm.srun_options import Surroundings
from phalanx_slurm.srun_options import read as read_srun
from phalanx_slurm.task_env import Job, Node, job_env
from phalanx_slurm.wrong import WrongError
from phalanx_wire.spec import Resources, SessionSpec, SlurmJob, SlurmPart
from tests.support.house import NOW
from tests.unit.client.fake_manager import session

SITE = Site(cwd="/w", user=("ada", 1000, 1000), host="login", environ={}, shared=("/w",), image="i")
HERE = Surroundings({"SLURM_JOB_ID": "7"}, {}, "/w")
ALIKE = "-J ddp-{} --requeue --ntasks-per-node=1 --cpus-per-task=2 --mem=1024"


def script(*parts: str) -> Script:
    lines = "#SBATCH hetjob\n".join(f"#SBATCH {part}\n" for part in parts)
    return read(f"#!/bin/bash\n{lines}srun a : b\n".encode(), SBATCH)


def asked(*parts: str) -> SessionSpec:
    found = script(*parts)
    return batch(request(found.parts), found, (), SITE).spec


def job_of(spec: SessionSpec) -> SlurmJob:
    assert spec.slurm is not None
    return spec.slurm


def test_parts_that_are_alike_are_a_session_of_so_many_containers() -> None:
    spec = asked(*(ALIKE.format(index) for index in range(3)))

    assert (3, None, "multi-node", True) == (spec.size, spec.roles, spec.mode, spec.requeue)
    assert (2.0, 1 << 30) == (spec.resources.cpu, spec.resources.mem)
    assert (
        tuple(SlurmPart(1, f"ddp-{index}", None, 1, 2) for index in range(3)) == job_of(spec).parts
    )
    assert ("ddp-0", 1, 2) == (
        job_of(spec).name,
        job_of(spec).tasks_per_node,
        job_of(spec).cpus_per_task,
    )


def test_parts_that_differ_have_roles_of_their_own() -> None:
    spec = asked("-N 2 --mem=1G", "--mem=2G -c 4", "-N 3 --gpus-per-node=1", "--mem=1G")
    wishes = [(one.name, one.replicas, one.resources) for one in spec.roles or ()]

    assert 7 == spec.size
    assert [
        ("main", 1, Resources(1.0, 1 << 30)),
        ("sub", 1, Resources(1.0, 1 << 30)),
        ("part-a", 1, Resources(4.0, 2 << 30)),
        ("part-b", 3, Resources(1.0, None, 1)),
        ("part-c", 1, Resources(1.0, 1 << 30)),
    ] == wishes
    assert [2, 1, 3, 1] == [part.nodes for part in job_of(spec).parts]


def test_there_are_names_for_the_roles_of_many_parts() -> None:
    spec = asked("--mem=1G", *("--mem=2G" for _ in range(703)))

    assert ["part-a", "part-z", "part-aa", "part-zz", "part-aaa"] == [
        (spec.roles or ())[index].name for index in (1, 26, 27, 702, 703)
    ]


def test_each_part_may_ask_for_all_memory_of_a_host() -> None:
    wish = with_all_memory(request(script("--mem=1G", "--mem=0").parts), 8 << 30)

    assert [1 << 30, 8 << 30] == [wish.room.mem_bytes, wish.more[0].room.mem_bytes]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (("-t 5", "-t 6"), "another --time than the first one"),
        (("-J a", "-p gpu"), "part 1 .* another --partition"),
        (("-a 1-2", "-J b"), "can't be an array"),
        (("-J a", "-w host1"), "hosts can't be named"),
        (("-J a", "-n 3 -N 1 --ntasks-per-node=2"), "do not fit"),
    ],
)
def test_parts_that_cannot_be_one_session_are_refused(parts: tuple[str, ...], why: str) -> None:
    with pytest.raises(WrongError, match=why):
        request(script(*parts).parts)


def test_what_has_no_effect_may_differ() -> None:
    assert 1 == len(request(script("--comment=a", "--comment=b").parts).more)


def test_commands_of_one_srun_are_for_a_part_each() -> None:
    line = "--output=o-0 --wait=60 a x : --output=o-1 --wait=60 --export=ALL,A=1 b"
    found = read_srun(line.split(), HERE)
    (second,) = found.more

    assert [(("a", "x"), 0, "o-0", {}), (("b",), 1, "o-1", {"A": "1"})] == [
        (one.command, one.part, one.stdout_file, one.env) for one in (found, second)
    ]
    assert 60.0 == found.wait_s


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("a", [0]),
        ("--het-group=1 a", [1]),
        ("--het-group=0-2 a", [0, 1, 2]),
        ("--het-group=2,0 a", [0, 2]),
        ("--het-group 1 a : --het-group=0 b", [1, 0]),
        ("a : b : c", [0, 1, 2]),
    ],
)
def test_commands_go_to_the_parts_that_are_named(line: str, parts: list[int]) -> None:
    found = read_srun(line.split(), HERE)

    assert parts == [found.part, *(one.part for one in found.more)]


@pytest.mark.parametrize("line", ["a :", ": b", "a : : b"])
def test_a_command_is_not_left_out(line: str) -> None:
    with pytest.raises(WrongError, match="no command given"):
        read_srun(line.split(), HERE)


@pytest.mark.parametrize("text", ["x", "1-0", "-1", "1,", "9999"])
def test_parts_are_named_by_numbers(text: str) -> None:
    with pytest.raises(WrongError, match="Invalid --het-group"):
        read_srun([f"--het-group={text}", "a"], HERE)


def test_a_script_is_told_of_the_first_part_as_the_job_and_of_each() -> None:
    wish = SlurmJob(
        name="a", tasks_per_node=2, parts=(SlurmPart(2, "a", None, 2), SlurmPart(1, "b"))
    )
    nodes = tuple(Node(f"sub{at}", "", 4, 1 << 30, 0) for at in range(3))
    told = job_env(Job(7, "calm", wish, nodes, "ada", "default", 0), 2)

    assert {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "a",
        "SLURM_JOB_NODELIST": "sub[0-1]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS": "4",
        "SLURMD_NODENAME": "sub2",
        "SLURM_HET_SIZE": "2",
        "SLURM_JOB_ID_HET_GROUP_1": "7",
        "SLURM_JOB_NAME_HET_GROUP_1": "b",
        "SLURM_JOB_NODELIST_HET_GROUP_0": "sub[0-1]",
        "SLURM_JOB_NODELIST_HET_GROUP_1": "sub2",
        "SLURM_JOB_NUM_NODES_HET_GROUP_0": "2",
        "SLURM_TASKS_PER_NODE_HET_GROUP_0": "2(x2)",
        "SLURM_TASKS_PER_NODE_HET_GROUP_1": "1",
    }.items() <= told.items()


def test_accounting_has_a_line_for_each_part_and_one_batch_step() -> None:
    view = session("running")
    wish = SlurmJob(name="a-0", parts=(SlurmPart(1, "a-0"), SlurmPart(1, "a-1")))
    spec = msgspec.structs.replace(view.spec, slurm=wish)
    one = job(msgspec.structs.replace(view, number=42, spec=spec, started_at=NOW))
    rows = [
        (FIELDS["jobid"].value(entry), FIELDS["jobname"].value(entry))
        for entry in entries([one], NOW, "", steps=True)
    ]

    assert [("42+0", "a-0"), ("42+0.batch", "batch"), ("42+1", "a-1")] == rows


def test_a_job_of_one_part_is_told_of_none() -> None:
    node = Node("main1", "", 1, 1 << 30, 0)

    assert not [
        name
        for name in job_env(Job(7, "calm", SlurmJob(), (node,), "ada", "default", 0), 0)
        if "HET" in name
    ]
