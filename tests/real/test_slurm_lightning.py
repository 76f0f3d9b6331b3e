"""Lightning under SLURM's own environment, unmodified: places, warnings, requeues."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from phalanx_lab import recipes
from phalanx_slurm.task_env import Job as SlurmsJob
from phalanx_slurm.task_env import Node, Step, task_env
from phalanx_wire.spec import SlurmJob
from tests.real.ground import PROGRAMS, Ground, await_true
from tests.real.login import Login

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

WITHIN_S = 240.0
LIMIT_S = 60
SHORT_LIMIT_S = 25
BEGIN_WITHIN_S = 15
"""So long before its warning an attempt begins; more is given as long as not all ranks train."""
MORE_S = 10
UNWARNED_S = 600
PLACES = [[0, 0, 0, 4], [1, 1, 0, 4], [2, 0, 1, 4], [3, 1, 1, 4]]
STEPS = 5
SUBMIT = """#!/bin/bash -l

# SLURM SUBMIT SCRIPT
#SBATCH --nodes=2             # This needs to match Trainer(num_nodes=...)
#SBATCH --ntasks-per-node=2   # This needs to match Trainer(devices=...)
#SBATCH --mem=3G
#SBATCH --time=0-00:01:00
#SBATCH --signal={warning}

# debugging flags (optional)
export NCCL_DEBUG=INFO
export PYTHONFAULTHANDLER=1
export TOLD=$PWD

# run script from above
srun python3 slurm_train.py {folder} 2 2 {options}
"""


class Job:
    """A training that is submitted as people do, in a folder that all hosts share."""

    def __init__(
        self, login: Login, warning: str, *words: str, limit_s: int = LIMIT_S, options: str = ""
    ) -> None:
        self.login = login
        for name in ("line.py", "slurm_train.py"):
            shutil.copy(PROGRAMS / name, login.folder)
        text = SUBMIT.format(warning=warning, folder=login.folder, options=options)
        submitted = login.run("sbatch", "--parsable", *words, login.script(text))
        self.number = submitted.ok().strip()
        self.due_s = limit_s - int(warning.partition("@")[2])

    def trains(self, attempt: int) -> list[Any]:
        """Wait until all ranks of an attempt have told where they are and at which step they
        began, and put off the warning until then: how long the import of PyTorch takes is the
        machine's affair. Only the first attempt is warned at all.
        """
        path = f"/v1/sessions/{self.number}"
        due = 0.0

        def there() -> bool:
            nonlocal due
            if 4 == len(self.told(attempt)):
                return True
            view = self.login.ground.http("GET", path).ok()
            if (view["attempt"], view["state"]) == (attempt, "running"):
                due = due or time.monotonic() + self.due_s
                if due - time.monotonic() < MORE_S:
                    more = MORE_S if attempt == 1 else UNWARNED_S
                    self.login.ground.http("POST", f"{path}/extend", {"seconds": more}).ok()
                    due += more
            assert view["attempt"] <= attempt, self.story()
            assert view["ended_at"] is None, self.story()
            return False

        await_true(f"all ranks of attempt {attempt} train", there, WITHIN_S)
        return self.told(attempt)

    def told(self, attempt: int) -> list[Any]:
        """What ranks of an attempt have told, in rank order."""
        files = sorted(self.login.folder.glob(f"told-{attempt - 1}-[0-9]"))
        return [json.loads(file.read_text()) for file in files]

    def ended(self) -> int:
        return self.login.ground.phalanx("wait", self.number, timeout=WITHIN_S).code

    def story(self) -> str:
        """All that a failure is understood by."""
        output = self.login.folder / f"slurm-{self.number}.out"
        return self.login.ground.phalanx("events", self.number).out + (
            output.read_text() if output.exists() else ""
        )


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slurm-lightning")
    for name in ("line.py", "slurm_train.py"):
        shutil.copy(PROGRAMS / name, folder)
    return folder


@pytest.fixture
def login(clean: Ground, tmp_path: Path) -> Login:
    """SLURM's programs on the path, in a fresh shared folder, with Lightning for all jobs."""
    return Login.at(clean, tmp_path, recipes.site_ml(print))


def test_a_warned_training_is_requeued_and_every_rank_goes_on_where_it_was(login: Login) -> None:
    job = Job(login, f"SIGUSR1@{LIMIT_S - BEGIN_WITHIN_S}")
    first = job.trains(1)
    second = job.trains(2)
    code = job.ended()

    assert [[place, "SLURMEnvironment", 0] for place in PLACES] == first
    assert [[place, "SLURMEnvironment", STEPS] for place in PLACES] == second
    assert 0 == code, job.story()
    assert "USR1 sent" in job.story()
    assert "requeued by itself, in main1" in job.story()


def test_a_rank_that_misses_the_warning_so_that_all_wait_is_requeued_at_the_limit(
    login: Login,
) -> None:
    words = ("--requeue", f"--time=0:{SHORT_LIMIT_S}")
    job = Job(login, "SIGHUP@5", *words, limit_s=SHORT_LIMIT_S, options="HUP ahead=3")
    first = job.trains(1)
    second = job.trains(2)
    code = job.ended()

    assert [[place, "SLURMEnvironment", 0] for place in PLACES] == first
    assert [[place, "SLURMEnvironment", STEPS] for place in PLACES] == second
    assert 0 == code, job.story()
    assert "HUP sent" in job.story()
    assert "requeued by itself" not in job.story()


@dataclass
class Alone:
    """A training of one task on this machine, with a `scontrol` that notes what it is asked for."""

    process: subprocess.Popen[bytes]
    folder: Path
    number: signal.Signals

    def told(self) -> str:
        """The environment that it has found, once it trains."""
        told = self.folder / "told-0-0"
        await_true("it trains", told.exists, 120)
        return str(json.loads(told.read_text())[1])

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
    own = {
        "PYTHONPATH": recipes.site_ml(print),
        "PATH": f"{folder}:{os.environ['PATH']}",
        "TOLD": str(folder),
        "MASTER_PORT": str(20000 + os.getpid() % 5000 + number),
    }
    process = subprocess.Popen(
        ["/usr/bin/python3", str(programs / "slurm_train.py"), str(folder), "1", "1", *words],
        env=os.environ | env | own,
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
        found = [one.told() for one in trainings]
        for one in trainings:
            one.process.send_signal(one.number)
        await_true("the first asks for a requeue", trainings[0].requeued, 60)
        codes = [one.process.wait(60) for one in trainings[1:]]
    finally:
        for one in trainings:
            with one.process:
                one.process.kill()

    assert ["SLURMEnvironment", "SLURMEnvironment", "LightningEnvironment"] == found
    assert (tmp_path / "hup" / "hpc_ckpt_1.ckpt").exists()
    assert [-signal.SIGUSR1, -signal.SIGUSR2] == codes
    assert [False, False] == [one.requeued() for one in trainings[1:]]
