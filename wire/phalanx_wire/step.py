"""What may be run in the containers of a running session beside its command: steps of tasks."""

from __future__ import annotations

import msgspec

EVERY_TASK = "all"
NO_TASK = "none"


class StepSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A step: the same command several times at once, each a task. Tasks are numbered through,
    those of one container one after the other, containers in rank order.

    Attributes:
        command: argument list of every task; what it names is looked for in the container.
        tasks: how many in all; None is as many as the session asks for, or one per container.
        per_container: at most so many in each; None is what the session asks for.
        containers: how many take part, the first ones that fit; None is as many as there are, or
            as there are tasks.
        hosts: only these take part, by their names in the session.
        exclude: these do not.
        cpus: of each task, which is only told to it; None is what the session asks for.
        env: laid over the container's own environment.
        workdir: where tasks begin; empty is where the container's command does.
        stdin: which task gets the asker's input: `all`, `none` or its number.
        stdin_file, stdout_file, stderr_file: paths in the containers, with SLURM's patterns (`%t`
            the task, `%n` the rank, `%N` the host, `%j` the job, ...); empty is the asker. Tasks
            whose names come out the same share one file, in the asker's container.
        label: each line begins with its task's number.
        unbuffered: pass on output as it comes, not in whole lines.
        kill_on_bad_exit: one task that fails ends the others.
        wait_s: seconds from the end of the first task until the others are ended; 0 is for ever.
        limit_s: seconds until all tasks are ended; None is the session's.
        name: what it is called; empty is the command's.
        tty: one task, on a terminal of `rows` x `columns`.
        part: of a job of several parts (`SlurmJob.parts`) the one whose containers take part.
        more: other commands, or the same, on further parts, whose tasks are of this step and
            numbered after its own; what they say of the step as a whole (`label` to `columns`) is
            not looked at, and they have none of these themselves.
    """

    command: tuple[str, ...]
    tasks: int | None = None
    per_container: int | None = None
    containers: int | None = None
    hosts: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    cpus: int | None = None
    env: dict[str, str] = {}
    workdir: str = ""
    stdin: str = EVERY_TASK
    stdin_file: str = ""
    stdout_file: str = ""
    stderr_file: str = ""
    label: bool = False
    unbuffered: bool = False
    kill_on_bad_exit: bool = False
    wait_s: float = 0.0
    limit_s: float | None = None
    name: str = ""
    tty: bool = False
    rows: int = 24
    columns: int = 80
    part: int = 0
    more: tuple[StepSpec, ...] = ()
