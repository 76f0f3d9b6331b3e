"""The variables that SLURM sets: for a job's script, and for each task of a step."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from msgspec.structs import replace as with_fields

from phalanx_slurm.nodelist import compress
from phalanx_wire.spec import SlurmJob


@dataclass(frozen=True, slots=True)
class Node:
    """A container, which is a node here.

    Attributes:
        host: its name in the session.
        address: on the session's network; empty before it is placed.
        cpus: whole cores, at least 1.
        mem_bytes: of its processes.
    """

    host: str
    address: str
    cpus: int
    mem_bytes: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Job:
    """A session as SLURM's words have it.

    Attributes:
        number: SLURM's id of it.
        asked: what was asked for.
        nodes: in rank order.
        restarts: how often it began anew.
        cluster: the pool that it runs in.
    """

    number: int
    name: str
    asked: SlurmJob
    nodes: tuple[Node, ...]
    user: str
    cluster: str
    restarts: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Tasks on each node of a step that says nothing else."""
        if self.asked.tasks is None:
            return (self.asked.tasks_per_node or 1,) * len(self.nodes)
        return spread(self.asked.tasks, min(self.asked.tasks, len(self.nodes)))

    @property
    def starts(self) -> tuple[int, ...]:
        """The first node of each part; a job that is of one has one."""
        sizes = [part.nodes for part in self.asked.parts]
        return tuple(sum(sizes[:index]) for index in range(max(1, len(sizes))))

    def part(self, index: int) -> Job:
        """One of its parts as a job by itself, which that of a job of one is."""
        if not self.asked.parts:
            return self
        start, one = self.starts[index], self.asked.parts[index]
        asked = with_fields(
            self.asked,
            name=one.name or self.asked.name,
            tasks=one.tasks,
            tasks_per_node=one.tasks_per_node,
            cpus_per_task=one.cpus_per_task,
            parts=(),
        )
        return replace(self, asked=asked, nodes=self.nodes[start : start + one.nodes])


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a job.

    Attributes:
        ranks: the job's nodes that take part, ascending.
        counts: tasks on each of them, at least one.
        cpus_per_task: None where nothing was asked for.
        launched_on: rank that `srun` runs on; None where it runs elsewhere.
    """

    number: int
    name: str
    ranks: tuple[int, ...]
    counts: tuple[int, ...]
    cpus_per_task: int | None
    launched_on: int | None


def spread(tasks: int, nodes: int) -> tuple[int, ...]:
    """Lay tasks out over nodes as evenly as it goes, the first ones get more."""
    each, more = divmod(tasks, nodes)
    return tuple(each + (1 if at < more else 0) for at in range(nodes))


def runs(counts: Sequence[int]) -> str:
    """Write numbers as SLURM does: `2(x3),1`."""
    spelled = []
    for count, group in itertools.groupby(counts):
        times = len(list(group))
        spelled.append(f"{count}(x{times})" if times > 1 else str(count))
    return ",".join(spelled)


def job_env(job: Job, rank: int) -> dict[str, str]:
    """Tell what every process of a container finds, the job's script among them."""
    return shared_env(job) | node_env(job.nodes[rank])


def shared_env(job: Job) -> dict[str, str]:
    """Tell what of that is the same in all containers; where they are many it is dear to spell."""
    return dict(_job(job.part(0))) | dict(_parts(job)) | dict(_array(job))


def node_env(own: Node) -> dict[str, str]:
    """Tell what of that is a container's own."""
    return dict(_node(own))


def script_env() -> dict[str, str]:
    """Tell what only the job's script finds beside that."""
    return {"SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


def task_env(job: Job, step: Step, task: int) -> dict[str, str]:
    """Tell what one task finds: the job's variables, and its own over them."""
    return of_task(job, step, task, shared_by_tasks(job, step))


def shared_by_tasks(job: Job, step: Step) -> dict[str, str]:
    """Tell what of that is the same for all tasks of a step."""
    return shared_env(job) | dict(_step(job, step))


def of_task(job: Job, step: Step, task: int, shared: Mapping[str, str]) -> dict[str, str]:
    """Add what is a task's own to what it shares."""
    node, local = place(step.counts, task)
    own = node_env(job.nodes[step.ranks[node]])
    return {**shared, **own, **dict(_task(step, node, task - local, local))}


def place(counts: Sequence[int], task: int) -> tuple[int, int]:
    """Find a task: which of the step's nodes, and which of the tasks there."""
    ends = _ends(tuple(counts))
    node = bisect.bisect_right(ends, task)
    if node == len(ends):
        raise IndexError("the step has fewer tasks")
    return node, task - ends[node] + counts[node]


@functools.lru_cache(maxsize=4)
def _ends(counts: tuple[int, ...]) -> tuple[int, ...]:
    """Tell behind which task each node's end; asked for every task of thousands."""
    return tuple(itertools.accumulate(counts))


def _job(job: Job) -> Iterator[tuple[str, str]]:
    asked = job.asked
    hosts = compress(node.host for node in job.nodes)
    yield "SLURM_JOB_ID", str(job.number)
    yield "SLURM_JOBID", str(job.number)
    yield "SLURM_JOB_NAME", asked.name or job.name
    yield "SLURM_JOB_USER", job.user
    yield "SLURM_JOB_PARTITION", asked.partition or job.cluster
    if asked.account:
        yield "SLURM_JOB_ACCOUNT", asked.account
    yield "SLURM_CLUSTER_NAME", "phalanx"
    yield "SLURM_RESTART_COUNT", str(job.restarts)
    if asked.submit_dir:
        yield "SLURM_SUBMIT_DIR", asked.submit_dir
    if asked.submit_host:
        yield "SLURM_SUBMIT_HOST", asked.submit_host
    for name in ("SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        yield name, hosts
    for name in ("SLURM_JOB_NUM_NODES", "SLURM_NNODES"):
        yield name, str(len(job.nodes))
    yield "SLURM_TASKS_PER_NODE", runs(job.counts)
    if asked.tasks is not None or asked.tasks_per_node is not None:
        yield "SLURM_NTASKS", str(sum(job.counts))
        yield "SLURM_NPROCS", str(sum(job.counts))
    if asked.tasks_per_node is not None:
        yield "SLURM_NTASKS_PER_NODE", str(asked.tasks_per_node)
    if asked.cpus_per_task is not None:
        yield "SLURM_CPUS_PER_TASK", str(asked.cpus_per_task)
    yield "SLURM_JOB_CPUS_PER_NODE", runs([node.cpus for node in job.nodes])


def _node(own: Node) -> Iterator[tuple[str, str]]:
    yield "SLURM_CPUS_ON_NODE", str(own.cpus)
    yield "SLURM_MEM_PER_NODE", str(own.mem_bytes >> 20)
    if own.gpus:
        yield "SLURM_GPUS_ON_NODE", str(own.gpus)
        yield "SLURM_JOB_GPUS", ",".join(map(str, range(own.gpus)))
    yield "SLURMD_NODENAME", own.host


def _parts(job: Job) -> Iterator[tuple[str, str]]:
    """What is told of each part of a job of several; all of them have the job's one number."""
    if not job.asked.parts:
        return
    yield "SLURM_HET_SIZE", str(len(job.starts))
    for index in range(len(job.starts)):
        part = job.part(index)
        told = {
            "SLURM_JOB_ID": str(job.number),
            "SLURM_JOB_NAME": part.asked.name or job.name,
            "SLURM_JOB_NODELIST": compress(node.host for node in part.nodes),
            "SLURM_JOB_NUM_NODES": str(len(part.nodes)),
            "SLURM_JOB_PARTITION": part.asked.partition or job.cluster,
            "SLURM_JOB_CPUS_PER_NODE": runs([node.cpus for node in part.nodes]),
            "SLURM_TASKS_PER_NODE": runs(part.counts),
        }
        for name, value in told.items():
            yield f"{name}_HET_GROUP_{index}", value


def _array(job: Job) -> Iterator[tuple[str, str]]:
    asked = job.asked
    if asked.array_task is None:
        return
    yield "SLURM_ARRAY_JOB_ID", str(asked.array_job or job.number)
    yield "SLURM_ARRAY_TASK_ID", str(asked.array_task)
    yield "SLURM_ARRAY_TASK_COUNT", str(asked.array_count)
    yield "SLURM_ARRAY_TASK_MIN", str(asked.array_first)
    yield "SLURM_ARRAY_TASK_MAX", str(asked.array_last)
    yield "SLURM_ARRAY_TASK_STEP", str(asked.array_step)


def _step(job: Job, step: Step) -> Iterator[tuple[str, str]]:
    hosts = compress(job.nodes[rank].host for rank in step.ranks)
    tasks, nodes, layout = str(sum(step.counts)), str(len(step.ranks)), runs(step.counts)
    if step.name:
        yield "SLURM_JOB_NAME", step.name
    for name in ("SLURM_STEP_ID", "SLURM_STEPID"):
        yield name, str(step.number)
    for name in ("SLURM_STEP_NODELIST", "SLURM_NODELIST"):
        yield name, hosts
    for name in ("SLURM_STEP_NUM_NODES", "SLURM_NNODES"):
        yield name, nodes
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"):
        yield name, tasks
    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        yield name, layout
    # Lightning refuses to start without it, and compares it with its number of devices.
    yield "SLURM_NTASKS_PER_NODE", str(max(step.counts))
    if step.cpus_per_task is not None:
        yield "SLURM_CPUS_PER_TASK", str(step.cpus_per_task)
    if step.launched_on is not None:
        launcher = job.nodes[step.launched_on]
        yield "SLURM_SRUN_COMM_HOST", launcher.host
        yield "SLURM_LAUNCH_NODE_IPADDR", launcher.address


def _task(step: Step, node: int, first: int, local: int) -> Iterator[tuple[str, str]]:
    """Yield a task's own; `first` is the number of the first one on its node."""
    yield "SLURM_NODEID", str(node)
    yield "SLURM_PROCID", str(first + local)
    yield "SLURM_LOCALID", str(local)
    yield "SLURM_GTIDS", ",".join(map(str, range(first, first + step.counts[node])))
