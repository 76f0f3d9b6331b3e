"""Who runs which task of a step, and with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from phalanx_manager.core.model import Kernel, Refusal, Session, SessionRow
from phalanx_slurm import task_files
from phalanx_slurm.nodelist import compress
from phalanx_slurm.task_env import Job, Node, Step, of_task, place, shared_by_tasks, spread
from phalanx_wire import names
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.slots import spell_bytes
from phalanx_wire.spec import SlurmJob
from phalanx_wire.step import StepSpec
from phalanx_wire.stream import STDERR, STDOUT, ExecCall

MAX_TASKS: Final = 4_096
"""Each is a stream; an agent serves so many at once."""

MAX_STEP_BYTES: Final = 128 << 20

_THERE: Final = frozenset({KernelState.MESHED, KernelState.RUNNING})
"""A script may ask before the other containers are known to have been released; they are there, and
so is its own, whatever is known of it by then."""

TASK: Final = f"{names.BUNDLE_MOUNT}/libexec/phalanx-task"


@dataclass(frozen=True, slots=True)
class Task:
    """One task. `shared` tells which of its channels go to a file that others write, too."""

    number: int
    kernel: Kernel
    call: ExecCall
    shared: dict[int, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A step, laid out.

    Attributes:
        writers: what writes each file that tasks share, by its path.
    """

    number: int
    tasks: tuple[Task, ...]
    writers: dict[str, tuple[Kernel, ExecCall]]


@dataclass(frozen=True, slots=True)
class _Share:
    """What one command of a step gets: containers, tasks in each, cores of each task."""

    spec: StepSpec
    ranks: tuple[int, ...]
    counts: tuple[int, ...]
    cpus: int | None

    @property
    def tasks(self) -> int:
        return sum(self.counts)


def job_of(session: Session, kernels: Sequence[Kernel]) -> Job:
    """Say a session in SLURM's words."""
    asked = session.spec.slurm or SlurmJob()
    return Job(
        number=session.number,
        name=session.name,
        asked=asked,
        nodes=tuple(
            Node(
                kernel.host_name,
                kernel.address,
                max(1, kernel.slots.cpu_milli // 1000),
                kernel.slots.mem_bytes,
                kernel.slots.gpu,
            )
            for kernel in kernels
        ),
        user=session.user,
        cluster=session.cluster,
        restarts=session.attempt - 1,
    )


def plan(row: SessionRow, spec: StepSpec, number: int, asked_in: int | None) -> Plan | Refusal:
    """Lay a step out over a session's containers. `asked_in` is the rank whose container it was
    asked for in; None is outside.
    """
    job = job_of(row.session, row.kernels)
    shares: list[_Share] = []
    for one in (spec, *spec.more):
        if one is not spec and one.more:
            return _refusal("more_of_more", "further commands have none of their own", "more")
        share = _share(row, job, one)
        if isinstance(share, Refusal):
            return share
        shares.append(share)
    ranks = tuple(rank for share in shares for rank in share.ranks)
    counts = tuple(count for share in shares for count in share.counts)
    wrong = _misfit(row, spec, ranks, counts, asked_in) or _too_large(shares)
    if wrong is not None:
        return wrong
    tasks: list[Task] = []
    writers: dict[str, tuple[Kernel, ExecCall]] = {}
    writer = row.kernels[asked_in or 0]
    for share in shares:
        step = Step(number, spec.name, ranks, counts, share.cpus, asked_in)
        first = len(tasks)
        told = shared_by_tasks(job, step)
        numbers = range(first, first + share.tasks)
        tasks += [_task(row, share.spec, job, step, number, told) for number in numbers]
        paths = {path for task in tasks[first:] for path in task.shared.values()}
        writers |= {path: (writer, _writing(writer, share.spec, path)) for path in paths}
    return Plan(number, tuple(tasks), writers)


def _misfit(
    row: SessionRow,
    spec: StepSpec,
    ranks: Sequence[int],
    counts: Sequence[int],
    asked_in: int | None,
) -> Refusal | None:
    """Say why a step that was laid out cannot run."""
    if len(set(ranks)) < len(ranks):
        return _refusal("part_twice", "a part of the job was asked for twice in one step", "part")
    if sum(counts) > MAX_TASKS:
        return _too_many(sum(counts))
    if spec.tty and sum(counts) > 1:
        return _refusal("tty_of_one", "only one task can have the terminal", "tty", "add -n 1")
    for rank in ranks:
        kernel = row.kernels[rank]
        if kernel.state not in _THERE and rank != asked_in:
            said = f"{kernel.host_name} is {kernel.state.name.lower()}"
            return _refusal("not_running", f"no task can run there: {said}", status=409)
    return None


def _share(row: SessionRow, job: Job, spec: StepSpec) -> _Share | Refusal:
    """Lay out one command of a step."""
    if not spec.command:
        return _refusal("no_command", "a step needs a command", "command")
    if not 0 <= spec.part < len(job.starts):
        there = f"there is no part {spec.part}; the job has {len(job.starts)}"
        hint = "each command (:) takes a part of its own; #SBATCH hetjob begins one"
        return _refusal("no_such_part", there, "part", hint)
    asked = (spec.tasks, spec.per_container, spec.containers, spec.cpus)
    if any(number is not None and number < 1 for number in asked):
        return _refusal("bad_tasks", "a step counts tasks, containers and cores from 1", "tasks")
    part = job.part(spec.part)
    start = job.starts[spec.part]
    ranks = _ranks(row, spec, range(start, start + len(part.nodes)))
    if isinstance(ranks, Refusal):
        return ranks
    counts = _counts(part, spec, len(ranks))
    if isinstance(counts, Refusal):
        return counts
    cpus = spec.cpus if spec.cpus is not None else part.asked.cpus_per_task
    return _Share(spec, ranks[: len(counts)], counts, cpus)


def _ranks(row: SessionRow, spec: StepSpec, part: range) -> tuple[int, ...] | Refusal:
    """Choose the containers that may take part."""
    by_host = {row.kernels[rank].host_name: rank for rank in part}
    for host in (*spec.hosts, *spec.exclude):
        if host not in by_host:
            there = compress(by_host)
            return _refusal("no_such_host", f"there is no {host}; there are {there}", "hosts")
    wanted = sorted({by_host[host] for host in spec.hosts}) or list(part)
    ranks = tuple(rank for rank in wanted if row.kernels[rank].host_name not in spec.exclude)
    if not ranks or (spec.containers or 1) > len(ranks):
        asked = spec.containers or 1
        return _refusal(
            "too_few_containers", f"{asked} containers were asked for, {len(ranks)} take part"
        )
    return ranks


def _counts(job: Job, spec: StepSpec, most: int) -> tuple[int, ...] | Refusal:
    """Lay tasks out over at most so many containers."""
    each = spec.per_container
    tasks = spec.tasks
    nodes = spec.containers or (min(most, tasks) if tasks is not None else most)
    if tasks is None and each is None and nodes == len(job.nodes):
        tasks = sum(job.counts)
    each = each or job.asked.tasks_per_node or 1
    tasks = nodes * each if tasks is None else tasks
    if not 0 < tasks <= MAX_TASKS:
        return _too_many(tasks)
    counts = spread(tasks, min(nodes, tasks))
    if spec.per_container is not None and counts[0] > spec.per_container:
        said = f"{tasks} tasks do not fit into {nodes} containers with {each} in each at most"
        return _refusal("too_many_tasks", said, "tasks")
    return counts


def _too_many(tasks: int) -> Refusal:
    return _refusal("bad_tasks", f"a step has 1 to {MAX_TASKS} tasks, not {tasks}", "tasks")


def _too_large(shares: Sequence[_Share]) -> Refusal | None:
    """Each task is told its command and environment in a message of its own, all at once."""
    size = sum(
        share.tasks * len(msgspec.json.encode((share.spec.command, share.spec.env)))
        for share in shares
    )
    if size <= MAX_STEP_BYTES:
        return None
    said = f"the commands and environments of all tasks are {spell_bytes(size)}"
    hint = f"at most {spell_bytes(MAX_STEP_BYTES)}: pass on less of the environment, or a file"
    return _refusal("step_too_large", said, "env", hint)


def _task(
    row: SessionRow, spec: StepSpec, job: Job, step: Step, number: int, told: Mapping[str, str]
) -> Task:
    """Lay out one task; `told` is what all of its command find in their environment."""
    node, _ = place(step.counts, number)
    kernel = row.kernels[step.ranks[node]]
    values = task_files.task_values(job, step, number)
    many = sum(step.counts) > 1
    own, shared = {}, {}
    for channel, pattern in ((STDOUT, spec.stdout_file), (STDERR, spec.stderr_file)):
        path = task_files.fill(pattern, values)
        if path and many and path != "/dev/null" and not task_files.is_each_tasks(pattern):
            shared[channel] = path
        else:
            own[channel] = path
    files = (task_files.fill(spec.stdin_file, values), own.get(STDOUT, ""), own.get(STDERR, ""))
    hears = spec.stdin in ("all", str(number)) and not spec.stdin_file
    call = ExecCall(
        kernel.id,
        (TASK, spec.workdir, *files, *spec.command),
        tty=spec.tty,
        stdin=hears,
        rows=spec.rows,
        columns=spec.columns,
        env=_threads(job, step, node) | spec.env | of_task(job, step, number, told),
        task=True,
    )
    return Task(number, kernel, call, shared)


def _threads(job: Job, step: Step, node: int) -> dict[str, str]:
    """Share the cores of a container among its tasks."""
    cores = job.nodes[step.ranks[node]].cpus // step.counts[node]
    return {"OMP_NUM_THREADS": str(step.cpus_per_task or max(1, cores))}


def _writing(kernel: Kernel, spec: StepSpec, path: str) -> ExecCall:
    command = (TASK, spec.workdir, "", path, "")
    return ExecCall(kernel.id, command, stdin=True, task=True)


def _refusal(code: str, title: str, field: str = "", hint: str = "", status: int = 400) -> Refusal:
    return Refusal(code, status, title, field, hint)
