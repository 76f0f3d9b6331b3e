"""What is asked for, out of options that were given: one value for `sbatch`, `salloc`, `srun`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from phalanx_slurm import amounts, times
from phalanx_slurm.argv import Given
from phalanx_slurm.arrays import Array, array
from phalanx_slurm.depend import Dependency, dependency
from phalanx_slurm.options import IGNORED, check
from phalanx_slurm.wrong import WrongError

_SIGNAL: Final = re.compile(
    r"(?P<who>[BR]{1,2}:)?(?P<name>[A-Za-z0-9+-]{1,12})(?:@(?P<before>[0-9]{1,5}))?"
)
_ENV_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEFAULT_BEFORE_S: Final = 60
_OF_A_PART: Final = frozenset(
    {
        *("job-name", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "cpus-per-gpu"),
        *("mem", "mem-per-cpu", "mem-per-gpu"),
        *("gres", "gpus", "gpus-per-node", "gpus-per-task"),
    }
)
"""Options by which the parts of a job may differ."""


@dataclass(frozen=True, slots=True)
class Room:
    """What each of the containers gets.

    Attributes:
        nodes: how many containers.
        tasks: in all, None where nothing was asked for.
        mem_bytes: None is the default, 0 is all that a host has.
        gpu_model: empty is any.
    """

    nodes: int
    tasks: int | None
    tasks_per_node: int | None
    cpus_per_task: int | None
    mem_bytes: int | None
    gpus: int
    gpu_model: str

    @property
    def tasks_here(self) -> int:
        """How many tasks a container holds at most."""
        if self.tasks_per_node is not None:
            return self.tasks_per_node
        return amounts.ceil_div(self.tasks, self.nodes) if self.tasks is not None else 1

    @property
    def cpus(self) -> int:
        """Cores of a container."""
        return self.tasks_here * (self.cpus_per_task or 1)


@dataclass(frozen=True, slots=True)
class Export:
    """Which variables the job gets: all of the asker's, or those named, and some by value."""

    everything: bool = True
    names: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Container:
    """What Pyxis' options ask for; a mount is (source, target, read-only)."""

    image: str = ""
    mounts: tuple[tuple[str, str, bool], ...] = ()
    workdir: str = ""
    env: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What a further part of a job (`hetjob`) asks for."""

    name: str
    room: Room


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What is asked for; texts are empty where nothing was. `room` is the first part's."""

    room: Room
    name: str = ""
    partition: str = ""
    account: str = ""
    time_limit_s: float | None = None
    warn_signal: str | None = None
    output: str = ""
    error: str = ""
    input: str = ""
    open_mode: Literal["", "append", "truncate"] = ""
    chdir: str = ""
    array: Array | None = None
    after: Dependency = field(default_factory=Dependency)
    requeue: bool | None = None
    hold: bool = False
    priority: int = 0
    export: Export = field(default_factory=Export)
    container: Container = field(default_factory=Container)
    more: tuple[Part, ...] = ()


def request(parts: Sequence[Given]) -> JobRequest:
    """Read the options of a job, of each of its parts.

    Raises:
        WrongError: with the sentence that says what is wrong.
    """
    given = parts[0]
    check(given)
    if "array" in given and len(parts) > 1:
        raise WrongError("a job of several parts (hetjob) can't be an array")
    mode = given.get("open-mode", "")
    limit = given.get("time")
    return JobRequest(
        room=room(given),
        name=given.get("job-name", ""),
        partition=given.get("partition", "").split(",")[0],
        account=given.get("account", ""),
        time_limit_s=times.limit_s(limit) if limit else None,
        warn_signal=signal(given["signal"]) if "signal" in given else None,
        output=given.get("output", ""),
        error=given.get("error", ""),
        input=given.get("input", ""),
        open_mode=_open_mode(mode),
        chdir=given.get("chdir", ""),
        array=array(given["array"]) if "array" in given else None,
        after=dependency(given["dependency"]) if given.get("dependency") else Dependency(),
        requeue=_last_of(given, "requeue", "no-requeue"),
        hold="hold" in given,
        priority=_priority(given.get("priority", "0")),
        export=export(given.get("export")),
        container=_container(given),
        more=tuple(_part(given, part, number) for number, part in enumerate(parts[1:], 1)),
    )


def _part(first: Given, given: Given, number: int) -> Part:
    """Read a further part, which may differ from the first one in its sizes and its name."""
    check(given)
    for long, value in given.items():
        if long not in _OF_A_PART and long not in IGNORED and first.get(long) != value:
            raise WrongError(
                f"part {number} of the job (hetjob) has another --{long} than the first one; all "
                "parts are one session, and only sizes and names may differ"
            )
    return Part(given.get("job-name", ""), room(given))


def room(given: Given) -> Room:
    """Read sizes."""
    per_node = _count(given, "ntasks-per-node")
    tasks = _count(given, "ntasks")
    if "nodes" in given:
        nodes = amounts.nodes(given["nodes"])
    else:
        nodes = amounts.ceil_div(tasks, per_node) if tasks is not None and per_node else 1
    if tasks is not None and tasks < nodes:
        nodes = tasks
    if tasks is not None and per_node is not None and tasks > nodes * per_node:
        raise WrongError(f"{tasks} tasks do not fit onto {nodes} nodes of {per_node} tasks each")
    held = per_node or (amounts.ceil_div(tasks, nodes) if tasks is not None else 1)
    model, gpus = _gpus(given, nodes, held)
    cpus_per_task = _count(given, "cpus-per-task")
    if "cpus-per-gpu" in given and gpus and cpus_per_task is None:
        cpus_per_task = amounts.ceil_div(
            amounts.count(given["cpus-per-gpu"], "cpus-per-gpu") * gpus, held
        )
    return Room(
        nodes=nodes,
        tasks=tasks,
        tasks_per_node=per_node,
        cpus_per_task=cpus_per_task,
        mem_bytes=_mem(given, held * (cpus_per_task or 1), gpus),
        gpus=gpus,
        gpu_model=model,
    )


def signal(text: str) -> str:
    """Read `USR1@90`, `SIGUSR1@90`, `B:10`; as our own spec writes it.

    Raises:
        WrongError: it is none.
    """
    match = _SIGNAL.fullmatch(text)
    if match is None:
        raise WrongError(f"Invalid --signal specification: {text[:80]}")
    if "R" in (match["who"] or ""):
        raise WrongError("--signal: there are no reservations (R:)")
    name = match["name"].upper().removeprefix("SIG")
    before = int(match["before"]) if match["before"] else _DEFAULT_BEFORE_S
    return f"{match['who'] or ''}{name}@{before}"


def unwarned(wish: JobRequest) -> str:
    """Say why a job hears no warning that it asks for; empty when it does, or asks for none."""
    if wish.warn_signal is None:
        return ""
    said = f"--signal={wish.warn_signal}: no warning is sent"
    if wish.time_limit_s is None:
        return f"{said}: there is no --time"
    if not 0 < int(wish.warn_signal.rpartition("@")[2]) < wish.time_limit_s:
        return f"{said}: that is no moment between the start and the end of --time"
    return ""


def export(text: str | None) -> Export:
    """Read the value of `--export`: `ALL`, `NONE`, `ALL,A=1`, `A,B=2`."""
    if text is None:
        return Export()
    words = _split(text)
    values: dict[str, str] = {}
    names: list[str] = []
    everything = False
    for word in words:
        key, equals, value = word.partition("=")
        if not equals and key.upper() in ("ALL", "NONE", "NIL"):
            everything = everything or key.upper() == "ALL"
        elif not _ENV_KEY.fullmatch(key):
            raise WrongError(f"Invalid --export specification: {text[:80]}")
        elif equals:
            values[key] = value
        else:
            names.append(key)
    return Export(everything, tuple(names), values)


def _split(text: str) -> list[str]:
    """Split at commas outside of quotes."""
    words, quote = [""], ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
            words[-1] += "" if not quote else letter
        elif letter in "'\"":
            quote = letter
        elif letter == ",":
            words.append("")
        else:
            words[-1] += letter
    return [word for word in words if word]


def _container(given: Given) -> Container:
    mounts: list[tuple[str, str, bool]] = []
    for text in filter(None, given.get("container-mounts", "").split(",")):
        source, *rest = text.split(":")
        flags = rest[1].split("+") if len(rest) == 2 else []
        if not source.startswith("/") or len(rest) > 2 or not set(flags) <= {"ro", "rw"}:
            raise WrongError(f"--container-mounts: {text[:80]!r}: write /SRC:/DST[:ro|rw]")
        mounts.append((source, (rest[0] if rest else "") or source, "ro" in flags))
    image = given.get("container-image", "")
    return Container(
        image=image_name(image),
        mounts=tuple(mounts),
        workdir=given.get("container-workdir", ""),
        env=tuple(filter(None, given.get("container-env", "").split(","))),
    )


def image_name(text: str) -> str:
    """Read an image as Enroot writes it: `docker://user@registry#name:tag` or a plain name.

    Raises:
        WrongError: it is a file of Enroot's.
    """
    plain = text.removeprefix("docker://").removeprefix("dockerd://")
    if plain.endswith((".sqsh", ".squashfs")) or plain.startswith(("/", "./", "podman://")):
        raise WrongError(
            f"--container-image: {text[:80]!r} is no image of a registry; name it as docker does"
        )
    registry, mark, name = plain.partition("#")
    return f"{registry.rpartition('@')[2]}/{name}" if mark else plain


def _gpus(given: Given, nodes: int, tasks: int) -> tuple[str, int]:
    if "gres" in given:
        found = [amounts.gres(part) for part in given["gres"].split(",")]
        models = [model for model, _ in found if model]
        return (models[0] if models else ""), sum(number for _, number in found)
    if "gpus-per-node" in given:
        return amounts.gpus(given["gpus-per-node"], "gpus-per-node")
    if "gpus-per-task" in given:
        model, number = amounts.gpus(given["gpus-per-task"], "gpus-per-task")
        return model, number * tasks
    if "gpus" in given:
        model, number = amounts.gpus(given["gpus"], "gpus")
        if number % nodes:
            raise WrongError(f"--gpus: {number} can't be shared evenly by {nodes} nodes")
        return model, number // nodes
    return "", 0


def _mem(given: Given, cpus: int, gpus: int) -> int | None:
    if "mem" in given:
        return amounts.mem_bytes(given["mem"], "mem")
    if "mem-per-cpu" in given:
        return amounts.mem_bytes(given["mem-per-cpu"], "mem-per-cpu") * cpus
    if "mem-per-gpu" in given and gpus:
        return amounts.mem_bytes(given["mem-per-gpu"], "mem-per-gpu") * gpus
    return None


def _count(given: Given, option: str) -> int | None:
    return amounts.count(given[option], option) if given.get(option) else None


def _open_mode(text: str) -> Literal["", "append", "truncate"]:
    match text[:1].lower():
        case "":
            return ""
        case "a":
            return "append"
        case "t":
            return "truncate"
        case _:
            raise WrongError(f"Invalid --open-mode specification: {text[:80]}")


def _last_of(given: Given, yes: str, no: str) -> bool | None:
    said = [option for option in given if option in (yes, no)]
    return said[-1] == yes if said else None


def _priority(text: str) -> int:
    if text.upper() == "TOP":
        return 1_000
    if not re.fullmatch(r"-?[0-9]{1,10}", text):
        raise WrongError(f"Invalid --priority specification: {text[:80]}")
    return max(-1_000, min(1_000, int(text)))
