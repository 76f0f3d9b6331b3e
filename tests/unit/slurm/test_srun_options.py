from __future__ import annotations

import pytest

from phalanx_slurm.srun_options import Surroundings, read
from phalanx_slurm.wrong import WrongError
from phalanx_wire.step import StepSpec

HERE = Surroundings(
    {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "4",
        "NCCL_DEBUG": "INFO",
        "MASTER_ADDR": "main1",
        "BACKENDAI_CLUSTER_HOST": "main1",
        "PHALANX_ATTEMPT": "1",
        "HOSTNAME": "main1",
        "PWD": "/workspace",
    },
    {"MASTER_ADDR": "main1", "BACKENDAI_CLUSTER_HOST": "main1"},
    "/workspace",
)


def spec(text: str) -> StepSpec:
    return read(text.split(), HERE)


def test_a_plain_command_gets_the_folder_and_what_the_script_has_exported() -> None:
    assert StepSpec(
        ("python3", "train.py", "-n", "3"), env={"NCCL_DEBUG": "INFO"}, workdir="/workspace"
    ) == spec("python3 train.py -n 3")


def test_the_options_seen_in_the_wild_are_read() -> None:
    found = spec(
        "-N 2 -n4 --ntasks-per-node=2 -c 3 -w sub[1-2] -x main1 -l -u --output o-%t -e e-%t -D /x "
        "-K --mpi=pmix --cpu-bind=none --gres gpu:1 --gpus-per-task=1 --job-name interactive "
        "-t 1:30 --overlap --exclusive -W 60 --container-image=a --export=NONE prog"
    )

    assert (
        StepSpec(
            ("prog",),
            tasks=4,
            per_container=2,
            containers=2,
            hosts=("sub1", "sub2"),
            exclude=("main1",),
            cpus=3,
            workdir="/x",
            stdout_file="o-%t",
            stderr_file="e-%t",
            label=True,
            unbuffered=True,
            kill_on_bad_exit=True,
            wait_s=60.0,
            limit_s=90.0,
            name="interactive",
        )
        == found
    )


@pytest.mark.parametrize(
    ("wish", "env"),
    [
        ("ALL,A=1", {"NCCL_DEBUG": "INFO", "A": "1"}),
        ("A=1,NCCL_DEBUG", {"NCCL_DEBUG": "INFO", "A": "1"}),
        ("NONE", {}),
    ],
)
def test_what_is_exported_may_be_chosen(wish: str, env: dict[str, str]) -> None:
    assert env == spec(f"--export={wish} prog").env


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("-o none p", ("", "/dev/null", "/dev/null")),
        ("-i in.txt p", ("in.txt", "", "")),
        ("-i none p", ("", "", "")),
        ("-o a.txt p", ("", "a.txt", "a.txt")),
    ],
)
def test_channels_lead_to_files_or_nowhere(text: str, files: tuple[str, str, str]) -> None:
    found = spec(text)

    assert files == (found.stdin_file, found.stdout_file, found.stderr_file)


def test_a_terminal_is_for_one_task() -> None:
    assert (True, 1) == (spec("--pty bash").tty, spec("--pty bash").tasks)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("--pony true", "unrecognized option '--pony'"),
        ("-n 2", "no command given to execute"),
        ("-n many true", "--ntasks"),
        ("--jobid=8 true", "only its own steps"),
        ("--output=3 true", "one task only"),
        ("-W soon true", "a number of seconds"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(WrongError, match=why):
        spec(text)
