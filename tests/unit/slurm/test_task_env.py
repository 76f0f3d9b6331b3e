from __future__ import annotations

import pytest

from phalanx_slurm.task_env import Job, Node, Step, place, runs, spread, task_env
from phalanx_slurm.task_files import fill, is_each_tasks, task_values
from phalanx_wire.spec import SlurmJob

NODES = tuple(Node(f"sub{at}", f"10.0.0.{at}", 4, 2 << 30, 2) for at in range(1, 4))
JOB = Job(7, "calm-otter", SlurmJob(tasks_per_node=2, array_job=5, array_task=3), NODES, "ada",
          "default", 1)  # fmt: skip
STEP = Step(2, "", (0, 2), (2, 1), 3, 0)


def test_the_last_task_of_a_step_on_some_of_the_nodes_knows_its_place() -> None:
    found = task_env(JOB, STEP, 2)

    assert {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "sub[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_NODELIST": "sub[1,3]",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "3",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_TASKS_PER_NODE": "2,1",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "1",
        "SLURM_GTIDS": "2",
        "SLURM_STEP_ID": "2",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_CPUS_PER_TASK": "3",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURMD_NODENAME": "sub3",
        "SLURM_RESTART_COUNT": "1",
        "SLURM_ARRAY_JOB_ID": "5",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
        "SLURM_SRUN_COMM_HOST": "sub1",
    }.items() <= found.items()


@pytest.mark.parametrize(
    ("counts", "text"), [((2, 2, 2, 2), "2(x4)"), ((2, 2, 1), "2(x2),1"), ((1,), "1"), ((), "")]
)
def test_counts_are_written_as_slurm_writes_them(counts: tuple[int, ...], text: str) -> None:
    assert text == runs(counts)


def test_a_task_is_found_on_its_node() -> None:
    assert [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)] == [
        place((2, 1, 3), task) for task in range(6)
    ]
    with pytest.raises(IndexError, match="fewer tasks"):
        place((2, 1, 3), 6)


def test_tasks_are_laid_out_evenly_and_the_first_nodes_get_more() -> None:
    assert [(2, 2), (2, 1), (1, 1, 1)] == [spread(4, 2), spread(3, 2), spread(3, 3)]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("%j_%t.log", "7_2.log"),
        ("%x-%A_%a-%N", "calm-otter-5_3-sub3"),
        ("%4t-%n-%J", "0002-1-7.2"),
        ("100%%-%q", "100%-%q"),
        ("raw\\%t", "raw%t"),
    ],
)
def test_a_tasks_file_is_named_by_its_pattern(pattern: str, name: str) -> None:
    assert name == fill(pattern, task_values(JOB, STEP, 2))


def test_a_file_is_a_tasks_own_where_its_name_tells_tasks_or_nodes_apart() -> None:
    assert [True, True, False, False] == [is_each_tasks(one) for one in ("%t", "%5N", "%j", "\\%t")]
