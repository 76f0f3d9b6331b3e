"""From options and a script to the session that is submitted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from phalanx_slurm.argv import Given
from phalanx_slurm.batch import Site, batch, session_name, upload_of, variables, with_array
from phalanx_slurm.options import SBATCH
from phalanx_slurm.request import Export, request
from phalanx_slurm.script import read
from phalanx_slurm.wrong import WrongError
from phalanx_wire.spec import Mount

SCRIPT = read(b"#!/bin/bash -l\necho hello\n", SBATCH)
AS_RUN = "PATH=/opt/phalanx/slurm:/opt/phalanx/bin:$PATH\necho hello\n"
"""A login shell sets the path anew."""
SITE = Site(
    cwd="/home/ada/run",
    user=("ada", 1000, 1000),
    host="login",
    environ={"PATH": "/usr/bin:/home/ada/venv/bin", "HOME": "/home/ada", "LANG": "C", "A": "1"},
    shared=("/home", "/data"),
    read_only=("/data",),
    image="my/image",
    tail="k3x7",
)


def submitted(given: Given, site: Site = SITE, task: int | None = None) -> tuple[str, object]:
    asked = batch(request((given,)), SCRIPT, ("x",), site, path="/home/ada/job.sh", task=task)
    return asked.spec.command[2], asked


def test_a_script_is_a_session_that_runs_it_in_its_first_container() -> None:
    wish = request(({"job-name": "My Job!", "nodes": "2", "ntasks-per-node": "4", "mem": "1G"},))
    asked = batch(wish, SCRIPT, ("x", "y"), SITE)
    spec = asked.spec

    assert ("my-job-k3x7", "batch", "main", 2, "slurm") == (
        spec.name, spec.kind, spec.run_on, spec.size, spec.env_profile,
    )  # fmt: skip
    assert ("one-per-node", "multi-node") == (spec.spread, spec.mode)
    assert ("slurm_script", AS_RUN, "x", "y") == spec.command[3:]
    assert ("my/image", "/home/ada/run", "1000:1000") == (spec.image, spec.workdir, spec.user)
    assert (Mount("/home", "/home", False), Mount("/data", "/data", True)) == spec.mounts
    assert (4.0, 1 << 30) == (spec.resources.cpu, spec.resources.mem)
    assert {"LANG": "C", "A": "1"} == spec.env
    assert spec.slurm is not None
    assert ("My Job!", 4, "/home/ada/run", "ada", "/home/ada/run/slurm-%j.out") == (
        spec.slurm.name, spec.slurm.tasks_per_node, spec.slurm.submit_dir, spec.slurm.submit_user,
        spec.slurm.stdout,
    )  # fmt: skip


def test_without_a_shared_folder_it_is_sent_along_and_no_file_is_promised() -> None:
    lonely = Site(cwd="/home/ada/run", user=SITE.user, host="login", environ={}, image="i")
    asked = batch(request(({},)), SCRIPT, (), lonely)

    assert ("/home/ada/run", False) == (asked.upload, asked.files)
    assert (None, None, ()) == (asked.spec.workdir, asked.spec.user, asked.spec.mounts)
    assert "exec >" not in asked.spec.command[2]
    assert asked.spec.slurm is not None
    assert "" == asked.spec.slurm.stdout


@pytest.mark.parametrize("folder", ["/", "/root"])
def test_a_home_as_a_whole_is_never_sent(folder: str) -> None:
    site = Site(cwd=folder, user=SITE.user, host="h", environ={"HOME": "/root"}, image="i")

    assert "" == upload_of(request(({},)), site)


def test_without_any_image_it_says_where_one_can_be_named() -> None:
    with pytest.raises(WrongError, match="--container-image=IMAGE"):
        batch(request(({},)), SCRIPT, (), Site("/", SITE.user, "h", {}))


@pytest.mark.parametrize(
    ("given", "redirection"),
    [
        ({}, 'exec >/home/ada/run/slurm-"$SLURM_JOB_ID".out 2>&1'),
        ({"open-mode": "append"}, 'exec >>/home/ada/run/slurm-"$SLURM_JOB_ID".out 2>&1'),
        ({"output": "o", "error": "e"}, "exec >/home/ada/run/o 2>/home/ada/run/e"),
        ({"output": "/home/x/%x"}, "exec >/home/x/slurm_script 2>&1"),
    ],
)  # fmt: skip
def test_output_goes_where_a_user_of_slurm_looks(given: Given, redirection: str) -> None:
    assert redirection in submitted(given)[0].split("\n")


def test_an_array_task_names_its_files_by_its_index() -> None:
    shell, _ = submitted({"array": "3-5"}, task=4)

    assert (
        'exec >/home/ada/run/slurm-"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}"_4.out 2>&1'
        in shell.split("\n")
    )


def test_an_array_task_knows_its_array() -> None:
    wish = request(({"array": "3-7:2"},))
    asked = with_array(batch(wish, SCRIPT, (), SITE, task=5), wish, 42)
    slurm = asked.spec.slurm

    assert slurm is not None
    assert (42, 5, 3, 7, 2, 3) == (
        slurm.array_job, slurm.array_task, slurm.array_first, slurm.array_last, slurm.array_step,
        slurm.array_count,
    )  # fmt: skip
    assert "slurm-script-k3x7-5" == asked.spec.name


def test_variables_of_this_machine_stay_here_unless_they_are_named() -> None:
    environ = {"HOME": "/h", "SSH_AUTH_SOCK": "s", "BASH_ENV": "/lmod", "A": "1", "B": "2"}
    environ |= {"BASH_FUNC_x%%": "()"}

    assert {"A": "1", "B": "2"} == variables(Export(), (), environ)
    assert {"HOME": "/h"} == variables(Export(everything=False, names=("HOME",)), (), environ)
    assert {"B": "2", "C": "3"} == variables(
        Export(everything=False, values={"C": "3"}), ("B",), environ
    )
    with pytest.raises(WrongError, match="--export=NONE"):
        variables(Export(), (), {"A": "x" * 300_000})


@pytest.mark.parametrize(
    ("job", "name"),
    [("a", "a-k3x7"), ("Größe/1 2", "gr-e-1-2-k3x7"), ("", "k3x7"), ("x" * 99, "x" * 40 + "-k3x7")],
)
def test_a_job_of_any_name_gets_a_session_of_an_allowed_one(job: str, name: str) -> None:
    assert name == session_name(job, "k3x7")


def test_the_launcher_runs_the_script_under_its_name_with_its_arguments(tmp_path: Path) -> None:
    site = Site(str(tmp_path), (("me"), 0, 0), "h", {}, shared=(str(tmp_path),), image="i")
    script = read(b'#!/bin/sh\necho "$0 $*"; echo bad >&2; exit 5\n', SBATCH)
    asked = batch(request(({"job-name": "j"},)), script, ("a b", "c"), site)
    environ = {**os.environ, "SLURM_JOB_ID": "7", "TMPDIR": str(tmp_path)}
    done = subprocess.run(asked.spec.command, env=environ, check=False, capture_output=True)

    assert (5, b"", b"") == (done.returncode, done.stdout, done.stderr)
    said = (tmp_path / "slurm-7.out").read_text()
    assert f"{tmp_path}/job7/slurm_script a b c\nbad\n" == said
