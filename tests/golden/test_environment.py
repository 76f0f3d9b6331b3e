"""The whole environment of every rank, held equal to files that were checked by hand.

`python -m tests.golden.test_environment` writes them anew; look at the difference before you
commit it: these variables are a contract with programs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phalanx_manager.core.cluster_env import rank_env
from phalanx_manager.core.model import SessionRow
from phalanx_wire.spec import Resources, RoleSpec, SlurmJob
from tests.support.house import row

FOLDER = Path(__file__).parent / "environment"
THREE_ROLES = (
    RoleSpec(name="main"),
    RoleSpec(name="ps", replicas=2, env={"ROLE_IS": "ps"}),
    RoleSpec(name="worker", replicas=3, resources=Resources(cpu=2.5)),
)

JOB = SlurmJob(
    name="train",
    tasks_per_node=2,
    cpus_per_task=2,
    submit_dir="/home/u",
    array_job=7,
    array_task=3,
    array_last=9,
    array_count=10,
)

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "one": ("a", {}),
    "one_that_asked_for_default": ("a", {"env_profile": "default"}),
    "four_on_one_host": ("aaaa", {}),
    "two_and_two": ("aabb", {"resources": Resources(cpu=4)}),
    "one_and_three": ("abbb", {}),
    "three_roles": ("aabbbc", {"roles": THREE_ROLES}),
    "twelve": ("aaabbbcccddd", {"master_port": 29500}),
    "no_egress": ("ab", {"egress": False}),
    "user_wins": ("ab", {"env": {"OMP_NUM_THREADS": "3", "RANK": "9", "DATA": "/data"}}),
    "profile_node": ("aabb", {"env_profile": "node"}),
    "profile_torchrun": ("aabb", {"env_profile": "torchrun", "resources": Resources(gpu=2)}),
    "profile_none": ("aabb", {"env_profile": "none"}),
    "profile_slurm": ("abcd", {"env_profile": "slurm", "run_on": "main", "slurm": JOB}),
    "profile_slurm_plain": ("a", {"env_profile": "slurm"}),
}


def case(name: str) -> SessionRow:
    seats, fields = CASES[name]
    return row(seats, **fields)


def spelled(one: SessionRow) -> dict[str, dict[str, str]]:
    return {
        kernel.host_name: {
            var.name: var.value for var in rank_env(one.session, one.kernels, kernel.rank)
        }
        for kernel in one.kernels
    }


@pytest.mark.parametrize("name", CASES)
def test_every_variable_of_every_rank_is_as_agreed(name: str) -> None:
    assert json.loads((FOLDER / f"{name}.json").read_text()) == spelled(case(name))


def test_the_example_of_the_documentation_is_what_its_container_gets() -> None:
    sub2 = spelled(case("two_and_two"))["sub2"]

    assert {
        "BACKENDAI_CLUSTER_SIZE": "4",
        "BACKENDAI_CLUSTER_HOSTS": "main1,sub1,sub2,sub3",
        "BACKENDAI_CLUSTER_REPLICAS": "main:1,sub:3",
        "BACKENDAI_CLUSTER_HOST": "sub2",
        "BACKENDAI_CLUSTER_IDX": "2",
        "BACKENDAI_CLUSTER_ROLE": "sub",
        "BACKENDAI_CLUSTER_LOCAL_RANK": "2",
        "WORLD_SIZE": "4",
        "WORLD_RANK": "2",
        "RANK": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "2",
        "NODE_RANK": "1",
        "MASTER_ADDR": "main1",
        "MASTER_ADDRESS": "main1",
        "MASTER_PORT": "12345",
        "TF_CONFIG": '{"cluster": {"worker": ["main1:12345", "sub1:12345", "sub2:12345", '
        '"sub3:12345"]}, "task": {"type": "worker", "index": 2}}',
        "OMP_NUM_THREADS": "4",
    }.items() <= sub2.items()


def test_the_users_value_wins_and_is_told_so() -> None:
    one = case("user_wins")
    sources = {var.name: var.source for var in rank_env(one.session, one.kernels, 0)}

    assert ("user over phalanx", "user", "phalanx") == (
        sources["RANK"],
        sources["DATA"],
        sources["WORLD_SIZE"],
    )


@pytest.mark.parametrize(
    ("seats", "gpus", "told"),
    [("ab", 0, "true"), ("ab", 1, None), ("a", 0, None)],
    ids=["none", "some", "alone"],
)
def test_accelerate_is_told_where_several_containers_have_no_devices(
    seats: str, gpus: int, told: str | None
) -> None:
    one = row(seats, resources=Resources(gpu=gpus), env_profile="default")

    assert told == spelled(one)["main1"].get("ACCELERATE_USE_CPU")


def test_a_waiting_session_has_all_but_what_its_place_decides() -> None:
    placed = set(spelled(row("ab"))["main1"])
    waiting = set(spelled(row([None, None]))["main1"])

    assert {
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "NODE_RANK",
        "PHALANX_ADDRESS",
        "PHALANX_SUBNET",
        "OMPI_MCA_btl_tcp_if_include",
        "OMPI_MCA_oob_tcp_if_include",
        "PRTE_MCA_oob_tcp_if_include",
    } == placed - waiting


def test_no_value_is_longer_than_linux_takes() -> None:
    one = row("a" * 8000)
    longest = max(len(var.value) for var in rank_env(one.session, one.kernels, 7999))

    assert longest < 131_072


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in CASES:
        text = json.dumps(spelled(case(name)), indent=1, sort_keys=True)
        (FOLDER / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
