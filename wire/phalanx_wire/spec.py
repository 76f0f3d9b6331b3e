"""What a user may ask for. Shapes only; meaning is judged by the manager's `admit`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Kind = Literal["batch", "interactive"]
Mode = Literal["auto", "single-node", "multi-node"]
Spread = Literal["pack", "spread", "one-per-node"]
RunOn = Literal["all", "main"]
Profile = Literal["default", "node", "torchrun", "slurm", "none"]
NetworkKind = Literal["private", "host"]
OnFailure = Literal["stop-all", "continue"]


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What each container gets.

    Attributes:
        cpu: cores, fractions allowed.
        mem: bytes, or a text like `4G`.
        gpu: a count, or `model:count`.
        shm: size of /dev/shm, bytes or a text.
        pids: limit of processes and threads.
    """

    cpu: float | None = None
    mem: int | str | None = None
    gpu: int | str | None = None
    shm: int | str | None = None
    pids: int | None = None


class Mount(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A folder or file of the host in the container; the agent's own file says what is allowed.

    Attributes:
        source: absolute path on every host of the session.
        target: absolute path in the container.
        read_only: the default; writing must be asked for.
    """

    source: str
    target: str
    read_only: bool = True


class RoleSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A kind of container in a session. What it leaves out (None) it takes from the session;
    its `env` is laid over the session's.
    """

    name: str
    replicas: int = 1
    image: str | None = None
    command: tuple[str, ...] | None = None
    env: dict[str, str] = {}
    workdir: str | None = None
    user: str | None = None
    mounts: tuple[Mount, ...] | None = None
    resources: Resources | None = None


class SlurmPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One part of a job of several (`#SBATCH hetjob`): containers that follow those of the part
    before it in rank order.

    Attributes:
        nodes: how many containers.
        name, tasks, tasks_per_node, cpus_per_task: as in `SlurmJob`.
    """

    nodes: int
    name: str = ""
    tasks: int | None = None
    tasks_per_node: int | None = None
    cpus_per_task: int | None = None


class SlurmJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What SLURM's programs ask for and tell beyond a session's own fields; a node is a container.

    Attributes:
        name: as the user wrote it; empty is the session's.
        tasks: of a step that says nothing else; None is `tasks_per_node` on each node.
        tasks_per_node, cpus_per_task: of such a step; None where nothing was asked for.
        submit_dir, submit_host, submit_user: where it was asked for, on the machine of the user.
        script: what was submitted, on that machine; empty for what is interactive.
        stdout, stderr: patterns of files there; empty where output goes to no file.
        array_job, array_task: number of the array's first job, None in that itself; and index in
            the array, None outside of one.
        array_first, array_last, array_step, array_count: the array itself.
        parts: at least two, the first one as this job itself has it; empty is a job of one.
    """

    name: str = ""
    tasks: int | None = None
    tasks_per_node: int | None = None
    cpus_per_task: int | None = None
    partition: str = ""
    account: str = ""
    submit_dir: str = ""
    submit_host: str = ""
    submit_user: str = ""
    script: str = ""
    stdout: str = ""
    stderr: str = ""
    array_job: int | None = None
    array_task: int | None = None
    array_first: int = 0
    array_last: int = 0
    array_step: int = 1
    array_count: int = 0
    parts: tuple[SlurmPart, ...] = ()


class SessionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A request for a session; after admission the same shape with everything filled in.

    Attributes:
        size: number of containers, shorthand for the roles `main:1,sub:size-1`.
        roles: in order; the first is always `main` with one replica.
        command: argument list, never a shell's line; empty is the image's own for a batch
            session and idling for an interactive one.
        upload: `sha256:<hex>` of an archive sent before; unpacked into every container.
        env_profile: None is `default`, or `none` in a session of one container.
        time_limit_s: seconds from RUNNING; then the session ends as `timeout`.
        grace_s: seconds between TERM and KILL whenever the session is stopped.
        requeue: go back to the queue after the time limit, a lost host, a restarted engine.
        max_attempts: how often it may fail by itself, each time as a whole gang.
        lost_after_s: seconds of an agent's silence after which its kernels are given up; None
            is what the manager is configured for.
        after: `afterok:ID,afterany:ID,afternotok:ID`: it waits for the end of these.
        hold_on_failure_s: keep the containers of a failed attempt, stopped, for so long.
        warn_signal: `USR1@90`: sent to every rank's command 90 s before the time limit; under the
            profile `slurm` to every task of its steps, and `B:USR1@90` to the command.
        master_port: None is 12345, or on the host's network a port that its agent has kept.
        slurm: with the profile of that name only.
        hold: it stays in the queue until it is released.
        sealed_for: filled in by the manager, never read from a request: the agents that can open a
            sealed upload, with their keys; it runs on no other. None where any can.
    """

    name: str | None = None
    kind: Kind | None = None
    size: int | None = None
    roles: tuple[RoleSpec, ...] | None = None
    mode: Mode = "auto"
    spread: Spread | None = None
    image: str | None = None
    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    env_profile: Profile | None = None
    workdir: str | None = None
    user: str | None = None
    mounts: tuple[Mount, ...] = ()
    upload: str | None = None
    resources: Resources = Resources()
    run_on: RunOn = "all"
    master_port: int | None = None
    cluster: str = "default"
    egress: bool = True
    network: NetworkKind = "private"
    on_failure: OnFailure = "stop-all"
    priority: int = 0
    time_limit_s: float | None = None
    grace_s: float = 10.0
    requeue: bool = False
    max_attempts: int = 1
    lost_after_s: float | None = None
    warn_signal: str | None = None
    after: str | None = None
    hold_on_failure_s: float | None = None
    slurm: SlurmJob | None = None
    hold: bool = False
    sealed_for: dict[str, str] | None = None
