"""Compares what a job starts with what its program asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from phalanx_client.lint import python
from phalanx_client.lint.found import Finding, Job, Read, Setting, Start
from phalanx_client.lint.python import Program, Trainer

_PYTHON: Final = re.compile(r"python(3(\.[0-9]+)?)?")
_LAUNCHERS: Final = frozenset({"torch.distributed.run", "torch.distributed.launch"})
_LOOPBACK: Final = ("127.", "localhost", "::1")
_INTERFACES: Final = ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
_TORCHRUN: Final = re.compile(r"--?(?P<name>[a-z_-]+)(=(?P<value>.*))?")


def judge(job: Job, start: Start, read: Read) -> Iterator[Finding]:
    """Find what is wrong with one command of a job."""
    program, launcher, path = _program(start, read)
    yield from _settings(job, job.file, start.settings, spawns=launcher)
    if launcher:
        yield from _torchrun(job, start)
    if program is not None:
        yield from of_program(path, program, job, start, launched=launcher)


def of_program(
    path: str, program: Program, job: Job, start: Start | None, *, launched: bool
) -> Iterator[Finding]:
    """Find what is wrong with a program in a job."""
    many = job.many or any((one.num_nodes or 1) > 1 for one in program.trainers)
    spawning = any((one.devices or 1) > 1 for one in program.trainers) and not job.slurm
    seen = job if many == job.many else replace(job, nodes=2)
    yield from _settings(seen, path, program.settings, spawns=launched or spawning)
    for line, address in program.loopback.items() if many else ():
        yield Finding(
            path, line, "loopback", f"ranks on other hosts do not reach {address}",
            "bind 0.0.0.0, and meet at $MASTER_ADDR",
        )  # fmt: skip
    ranks = _ranks(job, start) if not launched else 1
    for line, world in program.worlds.items() if ranks > 1 else ():
        if world != ranks:
            yield Finding(
                path, line, "world-size", f"world_size={world}, and {ranks} ranks are started",
                f"world_size={ranks}, or start {world}",
            )  # fmt: skip
    for trainer in program.trainers:
        if job.slurm and start is not None and not launched:
            yield from _slurm(path, trainer, job, start)
        elif job.size is not None and not launched:
            yield from _size(path, trainer, job)
        elif launched and job.nodes is not None:
            yield from _nodes(path, trainer, job)


def _ranks(job: Job, start: Start | None) -> int:
    """Tell how many processes a job starts of a program; 1 where nobody knows."""
    if not job.slurm:
        return job.size or 1
    known = start is not None and start.srun and job.nodes is not None and job.tasks is not None
    return (job.nodes or 1) * (job.tasks or 1) if known else 1


def _slurm(path: str, trainer: Trainer, job: Job, start: Start) -> Iterator[Finding]:
    devices, nodes = trainer.devices, trainer.num_nodes
    if not start.srun:
        if (devices or 1) > 1 or (nodes or 1) > 1 or job.many or (job.tasks or 1) > 1:
            yield Finding(
                job.file, start.line, "no-srun", f"{path} is started once and waits for others",
                f"srun {' '.join(start.argv[:2])} ...",
            )  # fmt: skip
        return
    if devices is not None and job.tasks is not None and devices != job.tasks:
        yield Finding(
            path, trainer.line, "ntasks-devices",
            f"devices={devices}, and the job has --ntasks-per-node={job.tasks}",
            f"#SBATCH --ntasks-per-node={devices}, or devices={job.tasks}",
        )  # fmt: skip
    elif devices is not None and devices > 1 and job.tasks is None:
        yield Finding(
            path, trainer.line, "ntasks-devices",
            f"devices={devices}, and the job does not say --ntasks-per-node",
            f"#SBATCH --ntasks-per-node={devices}",
        )  # fmt: skip
    yield from _nodes(path, trainer, job)


def _nodes(path: str, trainer: Trainer, job: Job) -> Iterator[Finding]:
    if trainer.num_nodes is not None and job.nodes is not None and trainer.num_nodes != job.nodes:
        yield Finding(
            path, trainer.line, "nodes", f"num_nodes={trainer.num_nodes}, there are {job.nodes}",
            f"num_nodes={job.nodes}, or ask for {trainer.num_nodes}",
        )  # fmt: skip


def _size(path: str, trainer: Trainer, job: Job) -> Iterator[Finding]:
    """In a session of several containers each is one rank; one alone may have many devices."""
    if trainer.devices is None or trainer.num_nodes is None:
        return
    world = trainer.devices * trainer.num_nodes
    alone = job.size == 1 and trainer.num_nodes == 1
    if world != job.size and not alone:
        yield Finding(
            path, trainer.line, "world-size",
            f"devices={trainer.devices} on num_nodes={trainer.num_nodes} are {world} ranks, and "
            f"{job.size} containers are started",
            f"-N {world}, or a Trainer of {job.size}",
        )  # fmt: skip


def _settings(
    job: Job, file: str, settings: Mapping[str, Setting], *, spawns: bool
) -> Iterator[Finding]:
    for name, setting in settings.items():
        value, line = setting.value, setting.line
        if name in ("MASTER_ADDR", "MASTER_ADDRESS") and value.startswith(_LOOPBACK) and job.many:
            yield Finding(
                file, line, "master-localhost", f"{name}={value}: each host would wait for itself",
                "leave it as it is set",
            )  # fmt: skip
        elif name == "MASTER_PORT" and job.port is not None and value not in ("", str(job.port)):
            if value.isdigit():
                yield Finding(
                    file, line, "master-port", f"MASTER_PORT={value}, the session's is {job.port}",
                    f"leave it as it is set, or ask with --master-port {value}",
                )  # fmt: skip
        elif name in _INTERFACES and value.startswith(("^", "=")):
            yield Finding(
                file, line, "interface-name", f"{name}={value}: gloo takes names as they are",
                "only NCCL_SOCKET_IFNAME knows ^ and =; leave it as it is set",
            )  # fmt: skip
        elif name == "LOCAL_RANK" and spawns:
            yield Finding(
                file, line, "local-rank", f"LOCAL_RANK={value} is set, and processes are spawned: "
                "each would take itself for that one", "leave it to the launcher",
            )  # fmt: skip


# ---------------------------------------------------------------- commands


def _program(start: Start, read: Read) -> tuple[Program | None, bool, str]:
    """Find the Python program that a command runs, and whether a launcher starts it."""
    words = list(start.argv)
    name = words[0].rpartition("/")[2] if words else ""
    launcher = name == "torchrun" or words[1:3] == ["-m", "torch.distributed.run"]
    launcher = launcher or words[:2] == ["accelerate", "launch"]
    if not launcher and _PYTHON.fullmatch(name) is None:
        return None, False, ""
    path = next((word for word in words[1:] if word.endswith(".py")), "")
    text = read(path) if path else None
    if text is None:
        return None, launcher, path
    try:
        return python.read(text), launcher, path
    except (SyntaxError, ValueError, RecursionError):
        return None, launcher, path


def _torchrun(job: Job, start: Start) -> Iterator[Finding]:
    given = _options(start.argv)
    file, line = job.file, start.line
    nodes = given.get("nnodes", "")
    if nodes.isdigit() and job.nodes is not None and int(nodes) != job.nodes:
        yield Finding(
            file, line, "nodes", f"--nnodes={nodes}, and there are {job.nodes}",
            f"--nnodes={job.nodes}",
        )  # fmt: skip
    port = given.get("master-port", "")
    if port.isdigit() and job.port is not None and int(port) != job.port:
        yield Finding(
            file, line, "master-port", f"--master-port={port}, and the session's is {job.port}",
            "--master-port=$MASTER_PORT",
        )  # fmt: skip
    met = given.get("master-addr", "") or given.get("rdzv-endpoint", "")
    if job.many and (met.startswith(_LOOPBACK) or "standalone" in given):
        yield Finding(
            file, line, "master-localhost", "each host would start a group of its own",
            "srun bash -c 'torchrun --master-addr=main1 --node-rank=$SLURM_NODEID ...'"
            if job.slurm
            else "--master-addr=$MASTER_ADDR --node-rank=$NODE_RANK",
        )  # fmt: skip
    if job.many and given.get("node-rank", "").isdigit():
        yield Finding(
            file, line, "node-rank", f"--node-rank={given['node-rank']} on every host",
            "srun bash -c 'torchrun --node-rank=$SLURM_NODEID ...'"
            if job.slurm
            else "--node-rank=$NODE_RANK",
        )  # fmt: skip
    if start.srun and (job.tasks or 1) > 1:
        yield Finding(
            file, line, "torchrun-tasks", f"srun starts torchrun {job.tasks} times on each host",
            "#SBATCH --ntasks-per-node=1; torchrun starts the processes of a host",
        )  # fmt: skip


def _options(argv: tuple[str, ...]) -> dict[str, str]:
    """Read `--name value` and `--name=value`, up to the program."""
    given: dict[str, str] = {}
    name = ""
    for word in argv[1:]:
        match = _TORCHRUN.fullmatch(word)
        if match:
            name = match["name"].replace("_", "-")
            given[name] = match["value"] or ""
        elif name and not given[name]:
            given[name] = word
        if word.endswith(".py"):
            break
    return given
