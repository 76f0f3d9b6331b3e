"""Lightning under SLURM's own environment, unmodified: places, warnings, requeues."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from phalanx_lab import recipes
from phalanx_slurm.task_env import Job as SlurmsJob
from phalanx_slurm.task_env import Node, Step, task_env
from phalanx_wire.spec import SlurmJob
from tests.real.ground import ACROSS, PROGRAMS, Ground, await_true, fresh_name

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(300)]

WITHIN_S = 240.0
LIMIT_S = 60
WARNED_BEFORE_S = 30
PLACES = [(0, 0, 0, 4), (1, 1, 0, 4), (2, 0, 1, 4), (3, 1, 1, 4)]
_SAID = re.compile(r"rank \((?P<place>[0-9, ]+)\) by (?P<by>\w+) from (?P<step>[0-9]+)")


class Job:
    """A training as a job, with a folder that all its nodes see."""

    def __init__(self, ground: Ground, folder: Path, command: str, *options: str) -> None:
        self.ground = ground
        self.name = fresh_name()
        self.shared = Path(ground.lab.plan.state, "share", self.name)
        os.makedirs(self.shared)
        site = recipes.site_ml(print)
        ground.run(
            "--detach", "-J", self.name, *ACROSS, "--env-profile", "slurm", "--run-on", "main",
            "-v", f"{site}:/site:ro", "-e", "PYTHONPATH=/site", "-c", "1", "-m", "3G",
            "--upload", str(folder), "-v", f"{self.shared}:/shared:rw", "-t", f"{LIMIT_S}s",
            "--grace", "2s", *options, "--", "bash", "-c", command,
        ).ok()  # fmt: skip

    def found(self, attempt: int) -> list[tuple[tuple[int, ...], str, int]]:
        """Place, environment and first step of each rank, in rank order."""
        said = self.ground.phalanx("logs", self.name, "--attempt", str(attempt)).out
        return sorted(
            (tuple(map(int, one["place"].split(","))), one["by"], int(one["step"]))
            for one in _SAID.finditer(said)
        )

    def trains(self, attempt: int, ranks: int) -> list[tuple[tuple[int, ...], str, int]]:
        """Wait until all ranks of an attempt train, and put off what is due by then: how long the
        import of PyTorch takes is the machine's affair.
        """
        path = f"/v1/sessions/{self.name}"
        due = 0.0

        def there() -> bool:
            nonlocal due
            view = self.ground.http("GET", path).ok()
            if (view["attempt"], view["state"]) != (attempt, "running"):
                ended = view["attempt"] > attempt or view["ended_at"] is not None
                assert not ended, self.story(attempt)
                return False
            due = due or time.monotonic() + LIMIT_S - WARNED_BEFORE_S
            if due - time.monotonic() < 20:
                self.ground.http("POST", f"{path}/extend", {"seconds": 20}).ok()
                due += 20
            return ranks == len(self.found(attempt))

        await_true(f"all ranks of attempt {attempt} train", there, WITHIN_S)
        return self.found(attempt)

    def story(self, attempt: int) -> str:
        """All that a failure is understood by."""
        said = self.ground.phalanx("logs", self.name, "--attempt", str(attempt))
        return self.ground.phalanx("events", self.name).out + said.out + said.err

    def ended(self) -> int:
        return self.ground.phalanx("wait", self.name, timeout=WITHIN_S).code


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slurm-lightning")
    for name in ("line.py", "slurm_train.py"):
        shutil.copy(PROGRAMS / name, folder)
    return folder


def test_a_warned_training_is_requeued_and_every_rank_goes_on_where_it_was(
    clean: Ground, programs: Path
) -> None:
    job = Job(
        clean, programs, "srun -n 4 --ntasks-per-node=2 python3 slurm_train.py /shared 2 2",
        "-N", "2", "--requeue", "--signal", f"USR1@{WARNED_BEFORE_S}",
    )  # fmt: skip
    first = job.trains(1, 4)
    second = job.trains(2, 4)
    code = job.ended()
    step = second[0][2]
    assert [(place, "SLURMEnvironment", 0) for place in PLACES] == first
    assert step > 0
    assert [(place, "SLURMEnvironment", step) for place in PLACES] == second
    assert 0 == code, job.story(2)
    assert "USR1 sent" in clean.phalanx("events", job.name).ok()


@dataclass
class Alone:
    """A training of one task on this machine, with a `scontrol` that notes what it is asked for."""

    process: subprocess.Popen[str]
    folder: Path
    number: signal.Signals

    def first_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def requeued(self) -> bool:
        asked = self.folder / "asked"
        return asked.exists() and "requeue 7\n" == asked.read_text()


def alone(programs: Path, folder: Path, name: str, number: signal.Signals, *words: str) -> Alone:
    """Start the program with what a task is given, and nothing else of ours."""
    folder.mkdir()
    note = folder / "scontrol"
    note.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n')
    note.chmod(0o755)
    job = SlurmJob(name="train", tasks_per_node=1)
    node = Node("localhost", "127.0.0.1", 1, 1 << 30, 0)
    step = Step(0, name, (0,), (1,), None, 0)
    env = task_env(SlurmsJob(7, "otter", job, (node,), "ada", "default", 0), step, 0)
    own = {"PYTHONPATH": recipes.site_ml(print), "PATH": f"{folder}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["/usr/bin/python3", str(programs / "slurm_train.py"), str(folder), "1", "1", *words],
        env=os.environ | env | own | {"MASTER_PORT": str(20000 + os.getpid() % 5000 + number)},
        stdout=subprocess.PIPE,
        text=True,
    )
    return Alone(process, folder, number)


def test_lightning_heeds_its_own_ways_to_requeue_and_to_be_left_alone(
    programs: Path, tmp_path: Path
) -> None:
    trainings = [
        alone(programs, tmp_path / "hup", "", signal.SIGHUP, "HUP"),
        alone(programs, tmp_path / "stay", "", signal.SIGUSR1, "stay"),
        alone(programs, tmp_path / "plain", "interactive", signal.SIGUSR2),
    ]
    try:
        said = [one.first_line() for one in trainings]
        for one in trainings:
            one.process.send_signal(one.number)
        await_true("the first asks for a requeue", trainings[0].requeued, 60)
        codes = [one.process.wait(60) for one in trainings[1:]]
    finally:
        for one in trainings:
            with one.process:
                one.process.kill()

    assert ["SLURMEnvironment", "SLURMEnvironment", "LightningEnvironment"] == [
        line.split(" by ")[1].split()[0] for line in said
    ]
    assert (tmp_path / "hup" / "hpc_ckpt_1.ckpt").exists()
    assert [-signal.SIGUSR1, -signal.SIGUSR2] == codes
    assert [False, False] == [one.requeued() for one in trainings[1:]]
