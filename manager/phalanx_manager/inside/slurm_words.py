"""SLURM's programs as containers have them: about the own job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from phalanx_manager.core import notice, warning
from phalanx_manager.core.model import Kernel
from phalanx_manager.inside import ending
from phalanx_manager.inside.question import USAGE, Answer, Handler, Question, WrongQuestion
from phalanx_manager.rpc import signals
from phalanx_slurm import accounting, columns, nodelist, nodes, queue, show, states
from phalanx_slurm.argv import Given, Options
from phalanx_wire.api import Amounts, NodeView
from phalanx_wire.ids import AgentId
from phalanx_wire.stream import Recipients

_OUTSIDE: Final = (
    "a container can ask about its own job only; submit where people do, with "
    "--dependency=afterany:{job} for what comes after this one"
)
_VERSION: Final = (("-V",), ("--version",))
_SCONTROL: Final = Options("oneliner/o details/d all/a quiet/Q verbose/v")
_SQUEUE: Final = Options(
    "jobs/j= job= format/o= Format/O= noheader/h me long/l states/t= state= user/u= users= name/n= "
    "all/a array/r sort/S= noconvert verbose/v start"
)
_SCANCEL: Final = Options("quiet/Q verbose/v batch/b full/f signal/s=")
_SACCT: Final = Options(
    "jobs/j= format/o= noheader/n parsable/p parsable2/P allocations/X brief/b long/l user/u= "
    "starttime/S= endtime/E= units= allusers/a duplicates/D noconvert"
)


async def scontrol(question: Question) -> Answer:
    """Answer `scontrol requeue [ID]`, `scontrol show job|hostnames|hostlist`."""
    given, words = _SCONTROL.parse_all(question.words)
    match words:
        case ["requeue", *ids]:
            question.check_own(_ids(ids))
            await ending.requeue(question)
            return Answer()
        case ["show", "job" | "jobs" | "jobid", *ids]:
            question.check_own(_ids(ids))
            lines = show.job_lines(_entry(question))
            apart = " " if "oneliner" in given else "\n   "
            return Answer(apart.join(lines) + "\n")
        case ["show", "hostnames" | "hostname", *lists]:
            return Answer("".join(f"{host}\n" for host in _hosts(question, lists)))
        case ["show", "hostlist", *lists]:
            return Answer(f"{nodelist.compress(_hosts(question, lists))}\n")
        case _:
            known = "requeue [ID], show job [ID], show hostnames [LIST], show hostlist [LIST]"
            raise WrongQuestion(USAGE, f"in a container there are: {known}")


def _entry(question: Question) -> queue.Entry:
    form = question.call.environ.get("SLURM_TIME_FORMAT", "")
    return queue.Entry(question.job, question.clock.now(), form)


def _hosts(question: Question, lists: list[str]) -> tuple[str, ...]:
    environ = question.call.environ
    own = environ.get("SLURM_JOB_NODELIST") or environ.get("SLURM_NODELIST")
    if not lists and not own:
        return tuple(kernel.host_name for kernel in question.row.kernels)
    return nodelist.expand(",".join(lists) or own or "")


async def squeue(question: Question) -> Answer:
    """Show the own job as a queue of one."""
    given, rest = _SQUEUE.parse_all(question.words)
    question.check_own([*_ids([given.get("jobs") or given.get("job", "")]), *rest])
    usual = queue.LONG if "long" in given else queue.USUAL
    usual = queue.START if "start" in given else usual
    layout = columns.letters(given.get("format", usual), queue.LETTERS)
    if "Format" in given:
        layout = columns.Layout(columns.named(given["Format"], queue.NAMES, spaced=False))
    lines = [] if "noheader" in given else [layout.heading()]
    if _is_asked_for(given, question):
        lines.append(layout.row(_entry(question)))
    return Answer("".join(f"{line}\n" for line in lines))


def _is_asked_for(given: Given, question: Question) -> bool:
    job = question.job
    named = {one for one in _listed(given, "states", "state") if one.lower() != "all"}
    wanted = (
        ({states.named(one) for one in named}, job.state),
        (_listed(given, "user", "users"), job.user),
        (_listed(given, "name"), job.name),
    )
    return all(not names or own in names for names, own in wanted)


def _listed(given: Given, *names: str) -> set[str]:
    return {one for name in names for one in given.get(name, "").split(",") if one}


async def sinfo(question: Question) -> Answer:
    """Show the own containers as nodes; a container is told of no others."""
    given, _rest = nodes.OPTIONS.parse_all(question.words)
    found = [_node(question.row.session.cluster, kernel) for kernel in question.row.kernels]
    lines = nodes.listing(given, found, question.row.session.cluster)
    return Answer("".join(f"{line}\n" for line in lines))


def _node(cluster: str, kernel: Kernel) -> NodeView:
    slots = kernel.slots
    own = Amounts(slots.cpu_milli / 1000, slots.mem_bytes, slots.gpu, slots.pids)
    return NodeView(
        name=AgentId(kernel.host_name),
        cluster=cluster,
        state="ready",
        reason=None,
        address=kernel.address or "",
        engine="",
        capacity=own,
        used=own,
        gpu_models=(),
        swarm="",
        last_seen_at=None,
        holders=(),
        strays=(),
        warnings=(),
    )


async def sacct(question: Question) -> Answer:
    """Account for the own job."""
    given, rest = _SACCT.parse_all(question.words)
    question.check_own([*_ids([given.get("jobs", "")]), *rest])
    fields = columns.named(given.get("format", _usual(given)), accounting.FIELDS, spaced=True)
    steps = "allocations" not in given
    entry = _entry(question)
    rows = list(accounting.entries([entry.job], entry.now, entry.form, steps=steps))
    heading = "noheader" not in given
    if "parsable" in given or "parsable2" in given:
        last = "parsable2" not in given
        lines = columns.parsable(fields, rows, "|", heading=heading, last=last)
    else:
        lines = columns.table(fields, rows, heading=heading)
    return Answer("".join(f"{line}\n" for line in lines))


def _usual(given: Given) -> str:
    if "brief" in given:
        return accounting.BRIEF
    return accounting.LONG if "long" in given else accounting.USUAL


async def scancel(question: Question) -> Answer:
    """Stop the own job, or send it a signal."""
    given, ids = _SCANCEL.parse_all(question.words)
    if not ids:
        raise WrongQuestion(1, "No job identification provided")
    question.check_own(_ids(ids))
    if given.get("signal", "KILL").upper().removeprefix("SIG") in ("KILL", "9"):
        await ending.end(question)
    else:
        await _signal(question, given)
    return Answer()


async def _signal(question: Question, given: Given) -> None:
    number = warning.signal_number(given["signal"])
    if number is None:
        raise WrongQuestion(1, f"error: Unknown job signal: {given['signal'][:20]}")
    to: Recipients = "all" if "full" in given else "command" if "batch" in given else "tasks"
    session = question.row.session
    addressed = [
        (one, notice.recipients(session, one, to) or to) for one in notice.hearers(question.row, to)
    ]
    failed = await signals.send_all(question.link, addressed, number)
    if failed:
        raise WrongQuestion(
            1, f"error: Kill job error on job id {question.job.id}: {failed[0].why}"
        )


def asks_version(argv: tuple[str, ...]) -> bool:
    """Tell whether one of the programs is asked for its version, as scripts do first."""
    return bool(argv) and argv[0] in (*PROGRAMS, "srun") and argv[1:2] in _VERSION


async def version(_question: Question) -> Answer:
    """Say whose options and output these programs have."""
    return Answer(f"slurm {show.VERSION}\n")


async def outside(question: Question) -> Answer:
    """Refuse what needs somebody's token."""
    raise WrongQuestion(1, f"error: {_OUTSIDE.format(job=question.job.id)}")


def _ids(texts: list[str] | tuple[str, ...]) -> list[str]:
    """Take lists of jobs apart; `.batch` is the job itself."""
    found = [one for text in texts for one in text.split(",") if one]
    return [one.partition(".")[0] for one in found]


PROGRAMS: Final[Mapping[str, Handler]] = {
    "scontrol": scontrol,
    "squeue": squeue,
    "sacct": sacct,
    "scancel": scancel,
    "sinfo": sinfo,
    "sbatch": outside,
    "salloc": outside,
}
