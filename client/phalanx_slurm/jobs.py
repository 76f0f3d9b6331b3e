"""A session as a job of SLURM's: its numbers, its names, its times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from phalanx_slurm import states
from phalanx_slurm.arrays import JobRef
from phalanx_slurm.nodelist import compress
from phalanx_slurm.patterns import expanded
from phalanx_wire.api import ENDED_STATES, SessionView
from phalanx_wire.slots import parse_bytes
from phalanx_wire.spec import SlurmJob

_SIGNALLED: Final = 128


@dataclass(frozen=True, slots=True)
class Job:
    """A session as a job.

    Attributes:
        number: `SLURM_JOB_ID`.
        array: number of its array's first job; None for a job by itself.
    """

    view: SessionView
    asked: SlurmJob
    number: int
    array: int | None
    task: int | None

    @property
    def id(self) -> str:
        """How it is named: `42`, or `42_7` in an array."""
        return str(self.number) if self.task is None else f"{self.array}_{self.task}"

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return self.asked.name or self.view.name

    @property
    def user(self) -> str:
        """Whose it is."""
        return self.asked.submit_user or self.view.user

    @property
    def partition(self) -> str:
        """Where it runs."""
        return self.view.cluster

    @property
    def state(self) -> str:
        """As the queue shows it."""
        return states.of(self.view)

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.view.state in ENDED_STATES

    @property
    def hosts(self) -> tuple[str, ...]:
        """Machines that it has, in rank order, each once."""
        return tuple(dict.fromkeys(one.agent for one in self.view.kernels if one.agent))

    @property
    def nodelist(self) -> str:
        """The same as one word."""
        return compress(self.hosts)

    @property
    def nodes(self) -> int:
        """How many nodes it has or asks for, which are containers."""
        return len(self.view.kernels)

    @property
    def tasks(self) -> int:
        """Of a step that says nothing else."""
        return self.asked.tasks or (self.asked.tasks_per_node or 1) * self.nodes

    @property
    def cpus(self) -> int:
        """Cores of all its containers."""
        cores = (role.replicas * ((role.resources and role.resources.cpu) or 1.0)
                 for role in self.view.spec.roles or ())  # fmt: skip
        return math.ceil(sum(cores)) or self.nodes

    @property
    def mem_bytes(self) -> int:
        """Of one of its containers."""
        mem = self.view.spec.resources.mem
        return parse_bytes(mem) or 0 if isinstance(mem, str) else mem or 0

    @property
    def gpus(self) -> int:
        """Of one of its containers."""
        gpu = self.view.spec.resources.gpu
        return int(str(gpu or 0).rpartition(":")[2])

    @property
    def limit_s(self) -> float | None:
        """Its time limit, with what it got more."""
        limit = self.view.spec.time_limit_s
        return None if limit is None else limit + self.view.extended_s

    @property
    def exit_text(self) -> str:
        """`code:signal` as accounting writes it."""
        code = self.view.exit_code or 0
        if self.view.state == "cancelled":
            return "0:15"
        if self.ended and code > _SIGNALLED:
            return f"0:{code - _SIGNALLED}"
        return f"{code}:0" if self.ended else "0:0"

    @property
    def reason(self) -> str:
        """Why it waits, or why it ended, as one of SLURM's words."""
        if self.view.state != "pending":
            return {"FAILED": "NonZeroExitCode", "TIMEOUT": "TimeLimit",
                    "OUT_OF_MEMORY": "OutOfMemory", "NODE_FAIL": "NodeDown",
                    }.get(self.state, "None")  # fmt: skip
        text = self.view.reason or ""
        if self.view.held:
            return "JobHeldUser"
        if "waits for the end of session" in text:
            return "Dependency"
        return "Priority" if "waits its turn" in text else "Resources"

    @property
    def stdout(self) -> str:
        """The file of its output, on the machine of the user; empty where there is none."""
        return expanded(self.asked.stdout, _marks(self))

    @property
    def stderr(self) -> str:
        """The file of its errors."""
        return expanded(self.asked.stderr, _marks(self))

    def elapsed_s(self, now: datetime) -> float:
        """How long it has run."""
        began = self.view.started_at
        if began is None:
            return 0.0
        return ((self.view.ended_at or now) - began).total_seconds()


def job(view: SessionView) -> Job:
    """Take a session as a job."""
    asked = view.spec.slurm or SlurmJob()
    array = asked.array_job or view.number
    return Job(
        view, asked, view.number, None if asked.array_task is None else array, asked.array_task
    )


def picked(jobs: Iterable[Job], ref: JobRef) -> list[Job]:
    """Those that are meant: a job by its number, all tasks of an array by its first job's."""
    found: list[Job] = []
    for one in jobs:
        if ref.tasks is not None:
            if one.array == ref.job and one.task in ref.tasks:
                found.append(one)
        elif ref.job in (one.number, one.array):
            found.append(one)
    return found


def _marks(job_: Job) -> Mapping[str, str]:
    """What the marks in names of output files stand for."""
    return {
        "j": str(job_.number),
        "J": str(job_.number),
        "A": str(job_.array or job_.number),
        "a": "" if job_.task is None else str(job_.task),
        "x": job_.name,
        "u": job_.user,
        "N": job_.hosts[0] if job_.hosts else "",
    }


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """By their numbers, tasks of an array together."""
    return sorted(jobs, key=lambda one: (one.array or one.number, one.task or 0, one.number))
