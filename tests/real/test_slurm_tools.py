"""SLURM's programs on the login side: scripts, arrays, steps, and real tools that call them.

The login side shares a folder with all hosts; tools are used as they come from PyPI.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from phalanx_lab import recipes, wheels
from tests.real.ground import ACROSS, PROGRAMS, Ground, await_true, call, fresh_name
from tests.real.login import Login
from tests.real.screen import PROMPT, at_a_terminal

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

SMALL = ("--mem=256M",)

SUM = """\
import socket
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
print(dist.get_rank(), "of", dist.get_world_size(), f"on {socket.gethostname()}:", total.item())
dist.destroy_process_group()  # else the one that ends first may abort the other
"""


@pytest.fixture(scope="module")
def site() -> str:
    """Submitit and TorchX, out of a folder on every host and here."""
    return recipes.site_slurm(print)


@pytest.fixture
def login(clean: Ground, site: str, tmp_path: Path) -> Login:
    """SLURM's programs on the path, in a fresh shared folder."""
    return Login.at(clean, tmp_path, site)


def test_an_unmodified_script_runs_its_steps_on_two_hosts(login: Login) -> None:
    script = login.script(
        "#!/bin/bash -l\n#SBATCH --nodes=2 --ntasks-per-node=2 --mem=256M\n"
        "#SBATCH --time=0-00:10:00 -J 'my job'\n"
        'echo "script $1 on $(hostname) in $PWD"\n'
        "srun bash -c 'echo $SLURM_PROCID $SLURM_LOCALID $SLURM_NTASKS $(hostname)'\n"
        "srun --output=step-%t.txt hostname\n"
        "exit 3\n"
    )
    done = login.run("sbatch", "--wait", script, "world")
    number = done.out.split()[-1]
    said = (login.folder / f"slurm-{number}.out").read_text().splitlines()

    assert 3 == done.code
    assert f"script world on main1 in {login.folder}" == said[0]
    assert ["0 0 4 main1", "1 1 4 main1", "2 0 4 sub1", "3 1 4 sub1"] == sorted(said[1:])
    steps = [(login.folder / f"step-{task}.txt").read_text().strip() for task in range(4)]
    assert ["main1", "main1", "sub1", "sub1"] == steps
    assert "FAILED" == login.state(number)
    assert "JobName=my_job" in login.run("scontrol", "show", "job", number).ok()


def test_steps_run_in_a_job_of_their_own_or_in_one_that_is_held(login: Login) -> None:
    own = login.run("srun", *SMALL, "-Q", "bash", "-c", "cat; exit 7", stdin="typed\n")
    held = login.run(
        "salloc", *SMALL, "-N2", "--", "bash", "-c",
        "srun -l hostname; scontrol show hostnames; echo $SLURM_JOB_NAME",
    ).ok()  # fmt: skip

    assert (7, "typed\n") == (own.code, own.out)
    assert ["0: main1", "1: sub1", "interactive", "main1", "sub1"] == sorted(held.splitlines())


def test_a_shell_in_a_job_is_on_our_terminal(login: Login) -> None:
    words = ("srun", *SMALL, "-Q", "--pty", "bash", "--job-name", "interactive")
    with at_a_terminal(("env", "-C", str(login.folder), *words), login.env) as screen:
        screen.await_text(PROMPT)
        screen.type("echo $(stty size) $SLURM_JOB_NAME $SLURM_PROCID/$SLURM_NTASKS $PWD\r")
        screen.await_text(rf"33 101 interactive 0/1 {login.folder}\r")
        screen.resize(44, 111)
        screen.type("until stty size | grep '44 111'; do sleep 0.1; done; echo u''p; sleep 60\r")
        screen.await_text(r"44 111\r\nup\r\n")
        screen.type("\x03")
        screen.await_text(PROMPT)
        screen.type("exit 9\r")
        code = screen.ended()

    assert 9 == code


def test_a_shell_in_a_held_job_starts_tasks_and_terminals_there(login: Login) -> None:
    words = ("salloc", *SMALL, "-N2", "sh")
    env = {**login.env, "PS1": "here$ "}
    with at_a_terminal(("env", "-C", str(login.folder), *words), env) as screen:
        screen.await_text(r"here\$ $")
        screen.type("srun -l hostname | sort; echo do''ne\r")
        screen.await_text(r"0: main1\r\n1: sub1\r\ndone")
        screen.type("srun -w sub1 -n 1 --pty bash\r")
        screen.await_text(r"sub1.*[$#] $")
        screen.type("srun -n 1 -w main1 --pty sh -c 'hostname; stty size; tty'; exit\r")
        screen.await_text(r"main1\r\n33 101\r\n/dev/pts/")
        screen.await_text(r"here\$ $")
        screen.type("exit 5\r")
        code = screen.ended()

    assert 5 == code


def test_what_hosts_do_not_share_is_sent_along(login: Login, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("sent\n")
    warned = "--time=10 --signal=USR1@60"
    line = f"cd {tmp_path} && sbatch {SMALL[0]} {warned} --wait --wrap 'cat data.txt'"
    done = login.run("env", "-u", "PHALANX_SLURM_SHARED", "sh", "-c", line)
    number = done.out.split()[-1]

    assert "the output is in no file" in done.err
    assert "sbatch: warning: containers of role" in done.err
    assert "what a program saves at its warning is gone in the next attempt" in done.err
    assert "sent\n" == login.ground.phalanx("logs", "--no-prefix", number).ok()


@contextmanager
def a_folder_of_each_hosts_own(login: Login) -> Iterator[Path]:
    """A folder in the shared one, over which every host has mounted one of its own."""
    own = login.folder / "own"
    own.mkdir()
    views = [
        ("nsenter", f"--mount=/proc/{login.ground.lab.pid(f'agent-{host.index}')}/ns/mnt")
        for host in login.ground.lab.hosts
    ]
    for view in views:
        call(*view, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(own)).ok()
    try:
        yield own
    finally:
        for view in views:
            call(*view, "umount", str(own)).ok()


def test_a_folder_that_hosts_do_not_share_is_told_where_one_looks(login: Login) -> None:
    ground, name = login.ground, fresh_name()
    script = "#!/bin/sh\n#SBATCH --nodes=2 --time=10 --signal=USR1@60\nsrun true; srun true\n"
    with a_folder_of_each_hosts_own(login) as own:
        mounts = ("-v", f"{own}:/own:rw", "-v", f"{login.folder}:/all:rw")
        ran = ground.run("-J", name, "-N", "2", *ACROSS, "--requeue", *mounts, "--", "true")
        there = ("--container-mounts", f"{own}:/own:rw")
        number = login.run(
            "sbatch", *SMALL, *there, "--parsable", "--wait", login.script(script)
        ).ok().strip()  # fmt: skip
    warnings = ground.show(name)["warnings"]
    output = (login.folder / f"slurm-{number}.out").read_text()
    (hosts,) = re.findall(r"folder /own is not shared: (.+) and (.+) each have", ran.err)

    assert set(ground.containers(name).values()) == set(hosts)
    (told,) = [text for text in warnings if "not shared" in text]
    assert f"a folder {own} of their own" in told
    assert f"{name}: folder /own is not shared" in ran.err
    assert "/all" not in ran.err
    assert 1 == output.count("srun: warning: folder /own is not shared")


def test_submitit_gets_results_of_jobs_and_arrays_and_cancels(login: Login) -> None:
    told = json.loads(login.run("python3", str(PROGRAMS / "submitting.py")).ok().splitlines()[-1])

    assert {"sum": 12, "products": [4, 10, 18], "log": True, "error": True} == {
        key: told[key] for key in ("sum", "products", "log", "error")
    }
    await_true("the job is cancelled", lambda: login.state(told["cancelled"]) == "CANCELLED")


def test_submitit_goes_on_from_its_checkpoint_after_a_preemption(login: Login) -> None:
    told = json.loads(
        login.run("python3", str(PROGRAMS / "checkpointing.py")).ok().splitlines()[-1]
    )

    assert {"result": "done in attempt 2"} == told


def test_torchx_runs_follows_lists_and_cancels(login: Login) -> None:
    torchx = ("python3", "-m", "torchx.cli.main")
    run = login.run(*torchx, "run", "-s", "slurm", "--wait", "utils.echo", "--msg", "hello").ok()
    handle = next(line for line in run.splitlines() if line.startswith("slurm://"))
    status = login.run(*torchx, "status", handle)
    log = login.run(*torchx, "log", "--streams", "stdout", f"{handle}/echo/0")
    sleeping = ("utils.sh", "--", "sleep", "300")
    other = login.run(*torchx, "run", "-s", "slurm", *sleeping).ok()
    last = next(line for line in other.splitlines() if line.startswith("slurm://"))
    number = last.rpartition("/")[2]
    await_true("it runs", lambda: login.state(number) == "RUNNING")
    login.run(*torchx, "cancel", last).ok()
    await_true("it is cancelled", lambda: login.state(number) == "CANCELLED")

    assert "SUCCEEDED" in status.out + status.err
    assert "hello\n" in log.ok()
    echoed = login.folder / f"slurm-{handle.rpartition('/')[2]}-echo-0.out"
    assert "hello\n" == echoed.read_text()
    assert {handle, last} <= set(login.run(*torchx, "list", "-s", "slurm").ok().split())


def test_torchx_trains_over_replicas_each_with_a_log_of_its_own(login: Login) -> None:
    (login.folder / "train.py").write_text(SUM)
    torchrun = login.folder / "bin/torchrun"
    torchrun.parent.mkdir()
    torchrun.write_text(wheels.TORCHRUN)
    torchrun.chmod(wheels.FOR_ANYBODY)
    paths = {
        "PATH": f"{torchrun.parent}:{login.env['PATH']}",
        "PYTHONPATH": f"{login.env['PYTHONPATH']}:{recipes.site_ml(print)}",
    }
    equipped = replace(login, env=login.env | paths)
    torchx = ("python3", "-m", "torchx.cli.main")
    wish = ("dist.ddp", "-j", "2x1", "--cpu", "1", "--memMB", "700", "--script", "train.py")
    run = equipped.run(*torchx, "run", "-s", "slurm", "--wait", *wish, timeout=200)
    assert 0 == run.code, login.run("sh", "-c", "tail -n 20 slurm-*").out
    handle = next(line for line in run.out.splitlines() if line.startswith("slurm://"))
    number = handle.rpartition("/")[2]
    logs = [
        login.run(*torchx, "log", "--streams", "stdout", f"{handle}/train/{replica}").ok()
        for replica in range(2)
    ]
    lines = login.run("sacct", "-n", "-P", "-X", "-o", "JobID,JobName,State", "-j", number).ok()

    assert [f"{rank} of 2 on {host}: 3.0" for rank, host in enumerate(("main1", "sub1"))] == sorted(
        line for log in logs for line in re.findall(r"\d of \d on \w+: [\d.]+", log)
    )
    assert [f"{number}+{part}|train-{part}|COMPLETED" for part in range(2)] == lines.split()


def test_parts_of_a_job_that_differ_get_what_each_asks_for(login: Login) -> None:
    script = login.script(
        "#!/bin/bash\n#SBATCH -J big --mem=300M\n#SBATCH hetjob\n#SBATCH -J small --mem=200M -n 2\n"
        "srun hostname\n"
        'srun -l -o step-%t echo big : bash -c "echo small \\$SLURM_PROCID \\$(hostname)"\n'
        "srun --het-group=0,1 bash -c 'echo $SLURM_JOB_NODELIST_HET_GROUP_1 $(hostname) "
        "$SLURM_MEM_PER_NODE'\n"
    )
    done = login.run("sbatch", "--wait", script).ok()
    said = (login.folder / f"slurm-{done.split()[-1]}.out").read_text().splitlines()

    assert "main1" == said[0]
    assert ["1: small 1 part-a1", "2: small 2 part-a1"] == sorted(said[1:3])
    assert ["part-a1 main1 300", "part-a1 part-a1 200", "part-a1 part-a1 200"] == sorted(said[3:])
    assert "big\n" == (login.folder / "step-0").read_text()
