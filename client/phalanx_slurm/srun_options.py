"""What a command line of `srun` asks for, where a job is there already."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from phalanx_slurm import amounts, times
from phalanx_slurm.argv import Given, Options
from phalanx_slurm.nodelist import expand
from phalanx_slurm.wrong import WrongError
from phalanx_wire.names import OWN_ENV_PREFIXES
from phalanx_wire.step import StepSpec

SRUN: Final = Options(
    """
    chdir/D= cpus-per-task/c= error/e= exclude/x= export= het-group= input/i= jobid= job-name/J=
    kill-on-bad-exit/K=? label/l nodelist/w= nodes/N= ntasks/n= ntasks-per-node= output/o= pty=?
    time/t= unbuffered/u wait/W=
    """,
    """
    account/A= comment= constraint/C= cpu-bind= cpu-freq= cpus-per-gpu= distribution/m= exact
    exclusive=? gpu-bind= gpu-freq= gpus/G= gpus-per-node= gpus-per-task= gres= gres-flags=
    hint= immediate/I=? mem= mem-bind= mem-per-cpu= mem-per-gpu= mpi= network= no-kill/k=?
    open-mode= overcommit/O overlap oversubscribe/s partition/p= propagate=? qos/q= quiet/Q
    reservation= signal= threads-per-core= verbose/v whole
    container-image= container-mounts= container-workdir= container-env= container-name=
    container-mount-home no-container-mount-home container-remap-root no-container-remap-root
    container-entrypoint no-container-entrypoint container-writable container-readonly
    """,
)
"""The second group is taken without effect: a job has its resources and its containers already,
and each of its tasks has all of its container."""

_FLAGS: Final = {
    "SLURM_LABELIO": "label",
    "SLURM_UNBUFFEREDIO": "unbuffered",
    "SLURM_KILL_BAD_EXIT": "kill-on-bad-exit",
}
_GROUPS: Final = re.compile(r"[0-9]{1,3}(?:-[0-9]{1,3})?")
_STAYS: Final = frozenset({"HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_"})
"""Variables that are about the shell that asks."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where `srun` was started.

    Attributes:
        environ: of its process.
        own: what the session set for its container; tasks have that of theirs.
        cwd: its folder; empty when it is not known.
    """

    environ: Mapping[str, str]
    own: Mapping[str, str]
    cwd: str


def read(argv: Sequence[str], around: Surroundings) -> StepSpec:
    """Read what comes after the word `srun`: options and a command, or several of them with a `:`
    between, each for a part of the job. What is said of the step as a whole is said by the first.

    Raises:
        WrongError: what is wrong, and what to do.
    """
    found: list[StepSpec] = []
    rest: Sequence[str] | None = argv
    while rest is not None:
        given, words = SRUN.parse(rest)
        end = words.index(":") if ":" in words else len(words)
        spec = _one(given, words[:end], around)
        groups = _groups(given.get("het-group", str(len(found))))
        found += [replace(spec, part=group) for group in groups]
        rest = words[end + 1 :] if end < len(words) else None
    return replace(found[0], more=tuple(found[1:]))


def _groups(text: str) -> Sequence[int]:
    """Read which parts a command is for: `0`, `0,2`, `0-2`."""
    words = text.split(",")
    if not all(_GROUPS.fullmatch(word) for word in words):
        raise WrongError(f"Invalid --het-group specification: {text[:80]}")
    ranges = [word.partition("-") for word in words]
    groups = {one for first, _, last in ranges for one in range(int(first), int(last or first) + 1)}
    if not groups:
        raise WrongError(f"Invalid --het-group specification: {text[:80]}")
    return sorted(groups)


def _one(given: Given, command: tuple[str, ...], around: Surroundings) -> StepSpec:
    for variable, long in _FLAGS.items():
        if around.environ.get(variable, "0") != "0":
            given.setdefault(long, "")
    job = around.environ.get("SLURM_JOB_ID", "")
    if given.get("jobid", job) != job:
        raise WrongError(f"--jobid: inside of job {job} only its own steps can be started")
    if not command:
        raise WrongError("no command given to execute")
    pty = given.get("pty", "no") not in ("no", "0")
    return StepSpec(
        command=command,
        tasks=_count(given, "ntasks") or (1 if pty else None),
        per_container=_count(given, "ntasks-per-node"),
        containers=amounts.nodes(given["nodes"]) if "nodes" in given else None,
        hosts=expand(given.get("nodelist", "")),
        exclude=expand(given.get("exclude", "")),
        cpus=_count(given, "cpus-per-task"),
        env=exported(given.get("export", "ALL"), around),
        workdir=given.get("chdir", around.cwd),
        stdin=_input(given.get("input", "all")),
        stdin_file=_file(given, "input"),
        stdout_file=_file(given, "output"),
        stderr_file=_file(given, "error") or _file(given, "output"),
        label="label" in given,
        unbuffered="unbuffered" in given,
        kill_on_bad_exit=given.get("kill-on-bad-exit", "0") != "0",
        wait_s=_seconds(given.get("wait", "0")),
        limit_s=times.limit_s(given["time"]) if "time" in given else None,
        name=given.get("job-name", ""),
        tty=pty,
    )


def exported(wish: str, around: Surroundings) -> dict[str, str]:
    """Choose what tasks get of the environment that `srun` was started in: `ALL`, `NONE`, names,
    and `NAME=value`.
    """
    words = [word for word in wish.split(",") if word]
    everything = "ALL" in words
    chosen = {
        name: value
        for name, value in around.environ.items()
        if (everything or name in words)
        and name not in _STAYS
        and not name.startswith(("SLURM", *OWN_ENV_PREFIXES))
        and around.own.get(name) != value
    }
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            chosen[name] = value
    return chosen


def _count(given: Given, long: str) -> int | None:
    return amounts.count(given[long], long) if long in given else None


def _input(text: str) -> str:
    return text if text in ("all", "none") or text.isdecimal() else "none"


def _file(given: Given, long: str) -> str:
    """Read where a channel leads: nowhere, to the asker (an empty text), or to a file."""
    text = given.get(long, "all")
    if text == "all" or (long == "input" and (text == "none" or text.isdecimal())):
        return ""
    if text == "none":
        return "/dev/null"
    if text.isdecimal():
        raise WrongError(f"--{long}={text}: the output of one task only can't be asked for")
    return text


def _seconds(text: str) -> float:
    if not text.isdecimal():
        raise WrongError(f"--wait={text[:80]}: a number of seconds is expected")
    return float(text)
