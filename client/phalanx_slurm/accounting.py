"""What `sacct` can tell of a job and of its batch step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from phalanx_slurm import amounts, states, times
from phalanx_slurm.columns import Field
from phalanx_slurm.jobs import Job

USUAL: Final = "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode"
BRIEF: Final = "JobID,State,ExitCode"
LONG: Final = (
    "JobID,JobIDRaw,JobName,Partition,MaxRSS,NTasks,AllocCPUS,Elapsed,State,ExitCode,ReqMem,"
    "NodeList"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A job, with `part` one of its parts, or with `step` a step of it, at a moment; `form` is how
    moments are spelled.
    """

    job: Job
    now: datetime
    step: str = ""
    form: str = ""
    part: int | None = None

    def stamp(self, at: datetime | None) -> str:
        """Spell a moment."""
        local = None if at is None else at.astimezone(self.now.tzinfo)
        return times.stamp(local, "Unknown", self.form)

    @property
    def id(self) -> str:
        """As accounting writes it: `42`, `42_7.batch`."""
        return f"{self.job.id}{self._tail}"

    @property
    def raw_id(self) -> str:
        """The same without the array."""
        return f"{self.job.number}{self._tail}"

    @property
    def _tail(self) -> str:
        part = "" if self.part is None else f"+{self.part}"
        return f"{part}.{self.step}" if self.step else part


def entries(jobs: Iterable[Job], now: datetime, form: str, *, steps: bool) -> Iterator[Entry]:
    """List jobs, each part of one of several, and with `steps` the batch step of what has begun."""
    for job in jobs:
        parts = range(len(job.asked.parts)) if job.asked.parts else (None,)
        for part in parts:
            yield Entry(job, now, "", form, part)
            if steps and not part and job.view.started_at is not None:
                yield Entry(job, now, "batch", form, part)


def _job_only(value: Callable[[Entry], str]) -> Callable[[Entry], str]:
    return lambda entry: "" if entry.step else value(entry)


def _name(entry: Entry) -> str:
    part = "" if entry.part is None else entry.job.asked.parts[entry.part].name
    return entry.step or part or entry.job.name


def _alloc(entry: Entry) -> int:
    return 0 if entry.job.view.started_at is None and not entry.job.hosts else entry.job.cpus


def _tres(entry: Entry) -> str:
    job = entry.job
    gpus = f",gres/gpu={job.gpus * job.nodes}" if job.gpus else ""
    mem = amounts.mem_shown(job.mem_bytes * job.nodes)
    return f"billing={job.cpus},cpu={job.cpus}{gpus},mem={mem},node={job.nodes}"


FIELDS: Final[Mapping[str, Field[Entry]]] = {
    field.heading.lower(): field
    for field in (
        Field[Entry]("JobID", lambda e: e.id, 12),
        Field[Entry]("JobIDRaw", lambda e: e.raw_id, 12),
        Field[Entry]("JobName", _name, 10),
        Field[Entry]("Partition", _job_only(lambda e: e.job.partition), 10),
        Field[Entry]("Account", lambda e: e.job.asked.account, 10),
        Field[Entry]("AllocCPUS", lambda e: str(_alloc(e)), 10),
        Field[Entry]("ReqCPUS", lambda e: str(e.job.cpus), 8),
        Field[Entry]("NCPUS", lambda e: str(_alloc(e)), 10),
        Field[Entry]("AllocNodes", lambda e: str(len(e.job.hosts)), 10),
        Field[Entry]("NNodes", lambda e: str(1 if e.step else e.job.nodes), 8),
        Field[Entry]("ReqNodes", lambda e: str(e.job.nodes), 8),
        Field[Entry]("NTasks", lambda e: "1" if e.step else "", 8),
        Field[Entry]("State", lambda e: states.accounted(e.job.view), 10),
        Field[Entry]("ExitCode", lambda e: e.job.exit_text, 8),
        Field[Entry]("DerivedExitCode", _job_only(lambda e: e.job.exit_text), 15),
        Field[Entry]("Start", lambda e: e.stamp(e.job.view.started_at), 19),
        Field[Entry]("End", lambda e: e.stamp(e.job.view.ended_at), 19),
        Field[Entry]("Submit", lambda e: e.stamp(e.job.view.created_at), 19),
        Field[Entry]("Eligible", lambda e: e.stamp(e.job.view.created_at), 19),
        Field[Entry]("Elapsed", lambda e: times.elapsed(e.job.elapsed_s(e.now)), 10),
        Field[Entry]("ElapsedRaw", lambda e: str(int(e.job.elapsed_s(e.now))), 10),
        Field[Entry]("CPUTime", lambda e: times.elapsed(e.job.elapsed_s(e.now) * _alloc(e)), 10),
        Field[Entry]("CPUTimeRAW", lambda e: str(int(e.job.elapsed_s(e.now) * _alloc(e))), 10),
        Field[Entry](
            "Timelimit",
            _job_only(
                lambda e: "UNLIMITED" if e.job.limit_s is None else times.elapsed(e.job.limit_s)
            ),
            10,
        ),
        Field[Entry]("User", _job_only(lambda e: e.job.user), 9),
        Field[Entry]("UID", _job_only(lambda e: e.job.user), 6),
        Field[Entry]("Group", _job_only(lambda e: e.job.user), 9),
        Field[Entry]("NodeList", lambda e: e.job.nodelist or "None assigned", 15),
        Field[Entry]("ReqMem", lambda e: amounts.mem_shown(e.job.mem_bytes), 10),
        Field[Entry]("WorkDir", _job_only(lambda e: e.job.asked.submit_dir), 20),
        Field[Entry]("Cluster", lambda _: "phalanx", 10),
        Field[Entry]("QOS", _job_only(lambda _: "normal"), 10),
        Field[Entry]("Priority", _job_only(lambda e: str(e.job.view.spec.priority)), 10),
        Field[Entry]("Reason", lambda e: e.job.reason, 22),
        Field[Entry]("Comment", lambda _: "", 14),
        Field[Entry]("AllocTRES", _tres, 10),
        Field[Entry]("ReqTRES", _job_only(_tres), 10),
        Field[Entry]("Restarts", _job_only(lambda e: str(e.job.view.attempt - 1)), 8),
        *(
            Field[Entry](name, lambda _: "", 10)
            for name in (
                "MaxRSS", "MaxVMSize", "AveRSS", "AveCPU", "MaxDiskRead", "MaxDiskWrite",
                "TotalCPU", "UserCPU", "SystemCPU", "MinCPU", "ConsumedEnergy", "Layout",
                "MaxPages", "AvePages", "AveVMSize", "AdminComment", "WCKey", "SubmitLine",
            )
        ),
    )
}  # fmt: skip
