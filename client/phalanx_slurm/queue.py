"""What `squeue` can tell of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from phalanx_slurm import amounts, states, times
from phalanx_slurm.columns import Field
from phalanx_slurm.jobs import Job

USUAL: Final = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
LONG: Final = "%.18i %.9P %.8j %.8u %.8T %.10M %.9l %.6D %R"
START: Final = "%.18i %.9P %.8j %.8u %.2t %.19S %.6D %20Y %R"


@dataclass(frozen=True, slots=True)
class Entry:
    """A job at a moment, and how moments are spelled (`SLURM_TIME_FORMAT`)."""

    job: Job
    now: datetime
    form: str = ""

    def stamp(self, at: datetime | None, nothing: str = "N/A") -> str:
        """Spell a moment."""
        return times.stamp(
            None if at is None else at.astimezone(self.now.tzinfo), nothing, self.form
        )


def end(entry: Entry) -> datetime | None:
    """When it has ended, or will at the latest."""
    view = entry.job.view
    if view.ended_at is not None:
        return view.ended_at
    if view.started_at is None or entry.job.limit_s is None:
        return None
    return view.started_at + timedelta(seconds=entry.job.limit_s)


def _where(entry: Entry) -> str:
    job = entry.job
    waits = job.state == "PENDING" or (job.ended and not job.hosts)
    return f"({job.reason})" if waits else job.nodelist


def _left(entry: Entry) -> str:
    limit = entry.job.limit_s
    if limit is None:
        return "UNLIMITED"
    return times.shown(limit - entry.job.elapsed_s(entry.now))


_FIELDS: Final[tuple[tuple[str, str, Field[Entry]], ...]] = (
    ("i", "jobarrayid", Field("JOBID", lambda e: e.job.id)),
    ("A", "jobid", Field("JOBID", lambda e: str(e.job.number))),
    ("F", "arrayjobid", Field("ARRAY_JOB_ID", lambda e: str(e.job.array or e.job.number))),
    ("K", "arraytaskid",
     Field("ARRAY_TASK_ID", lambda e: "N/A" if e.job.task is None else str(e.job.task))),
    ("P", "partition", Field("PARTITION", lambda e: e.job.partition)),
    ("j", "name", Field("NAME", lambda e: e.job.name)),
    ("u", "username", Field("USER", lambda e: e.job.user)),
    ("U", "userid", Field("UID", lambda e: e.job.user)),
    ("a", "account", Field("ACCOUNT", lambda e: e.job.asked.account or "(null)")),
    ("t", "statecompact", Field("ST", lambda e: states.SHORT[e.job.state])),
    ("T", "state", Field("STATE", lambda e: e.job.state)),
    ("M", "timeused", Field("TIME", lambda e: times.shown(e.job.elapsed_s(e.now)))),
    ("l", "timelimit", Field("TIME_LIMIT", lambda e: times.limit_shown(e.job.limit_s))),
    ("L", "timeleft", Field("TIME_LEFT", _left)),
    ("D", "numnodes", Field("NODES", lambda e: str(e.job.nodes))),
    ("C", "numcpus", Field("CPUS", lambda e: str(e.job.cpus))),
    ("N", "nodelist", Field("NODELIST", lambda e: e.job.nodelist)),
    ("R", "reasonlist", Field("NODELIST(REASON)", _where)),
    ("r", "reason", Field("REASON", lambda e: e.job.reason)),
    ("B", "batchhost",
     Field("EXEC_HOST", lambda e: e.job.hosts[0] if e.job.hosts else "n/a")),
    ("m", "minmemory", Field("MIN_MEMORY", lambda e: amounts.mem_shown(e.job.mem_bytes))),
    ("b", "tres-per-node",
     Field("TRES_PER_NODE", lambda e: f"gres:gpu:{e.job.gpus}" if e.job.gpus else "N/A")),
    ("V", "submittime", Field("SUBMIT_TIME", lambda e: e.stamp(e.job.view.created_at))),
    ("S", "starttime", Field("START_TIME", lambda e: e.stamp(e.job.view.started_at))),
    ("e", "endtime", Field("END_TIME", lambda e: e.stamp(end(e)))),
    ("Q", "priority", Field("PRIORITY", lambda e: str(e.job.view.spec.priority))),
    ("p", "prioritylong", Field("PRIORITY", lambda e: str(e.job.view.spec.priority))),
    ("q", "qos", Field("QOS", lambda _: "normal")),
    ("k", "comment", Field("COMMENT", lambda _: "(null)")),
    ("E", "dependency", Field("DEPENDENCY", lambda e: e.job.view.spec.after or "(null)")),
    ("Z", "workdir", Field("WORK_DIR", lambda e: e.job.asked.submit_dir)),
    ("o", "command", Field("COMMAND", lambda e: e.job.asked.script or "(null)")),
    ("Y", "schednodes", Field("SCHEDNODES", lambda _: "(null)")),
    ("f", "feature", Field("FEATURES", lambda _: "(null)")),
    ("x", "exc_nodes", Field("EXC_NODES", lambda _: "")),
    ("h", "oversubscribe", Field("OVER_SUBSCRIBE", lambda _: "OK")),
    ("v", "reservation", Field("RESERVATION", lambda _: "(null)")),
    ("g", "groupname", Field("GROUP", lambda e: e.job.user)),
    ("w", "wckey", Field("WCKEY", lambda _: "(null)")),
    ("y", "nice", Field("NICE", lambda _: "0")),
    ("c", "mincpus", Field("MIN_CPUS", lambda e: str(max(1, e.job.cpus // max(1, e.job.nodes))))),
    ("", "restartcnt", Field("RESTART_COUNT", lambda e: str(e.job.view.attempt - 1))),
    ("", "stdout", Field("STDOUT", lambda e: e.job.stdout)),
)  # fmt: skip
LETTERS: Final[Mapping[str, Field[Entry]]] = {
    letter: field for letter, _, field in _FIELDS if letter
}
NAMES: Final[Mapping[str, Field[Entry]]] = {name: field for _, name, field in _FIELDS}
