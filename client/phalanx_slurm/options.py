"""Which options SLURM's programs take, and what becomes of each here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from phalanx_slurm.argv import Given, Options
from phalanx_slurm.wrong import WrongError

_JOB: Final = """
    account/A= begin/b= chdir/D= clusters/M= comment= constraint/C= cpus-per-gpu= cpus-per-task/c=
    dependency/d= exclude/x= exclusive=? export= gpus/G= gpus-per-node= gpus-per-task= gres= help/h
    hold/H input/i= job-name/J= kill-on-invalid-dep= mem= mem-per-cpu= mem-per-gpu= nice=?
    nodelist/w= nodes/N= ntasks/n= ntasks-per-node= ntasks-per-gpu= overcommit/O oversubscribe/s
    share partition/p= priority= qos/q= quiet/Q reservation= signal= time/t= time-min= usage
    verbose/v version/V mail-type= mail-user= wckey= container-image= container-mounts=
    container-workdir= container-env= container-name= container-mount-home
    no-container-mount-home container-remap-root no-container-remap-root container-entrypoint
    no-container-entrypoint container-writable container-readonly container-save=
"""
_PASSED_OVER: Final = """
    acctg-freq= bb= bbf= cluster-constraint= contiguous core-spec/S= cores-per-socket= cpu-freq=
    deadline= delay-boot= distribution/m= extra= extra-node-info/B= gpu-bind= gpu-freq=
    gpus-per-socket= gres-flags= hint= ignore-pbs licenses/L= mcs-label= mem-bind= mincpus=
    network= no-kill/k=? ntasks-per-core= ntasks-per-socket= power= prefer= profile= propagate=?
    reboot sockets-per-node= spread-job switches= thread-spec= threads-per-core= tmp= tres-per-task=
    use-min-nodes wait-all-nodes=
"""
_BATCH: Final = """
    array/a= error/e= export-file= get-user-env=? open-mode= output/o= parsable requeue no-requeue
    test-only wait/W wrap= gid= uid= batch= container= container-id= nodefile/F=
"""
SBATCH: Final = Options(_JOB, _PASSED_OVER, _BATCH)
SALLOC: Final = Options(_JOB, _PASSED_OVER, "bell no-bell no-shell immediate/I=? kill-command/K=?")

_STEP: Final = """
    bcast=? compress=? cpu-bind= disable-status/X error/e= exact epilog= prolog= het-group=
    immediate/I=? jobid= kill-on-bad-exit/K=? label/l mpi= multi-prog no-allocate/Z open-mode=
    output/o= overlap preserve-env/E pty=? quit-on-interrupt relative/r= resv-ports=?
    slurmd-debug= task-epilog= task-prolog= threads= unbuffered/u wait/W= whole requeue no-requeue
"""
SRUN_OUTSIDE: Final = Options(_JOB, _PASSED_OVER, _STEP)

RENAMED: Final = {"array": "ARRAY_INX", "time": "TIMELIMIT"}
"""Options whose variable is called otherwise."""

IGNORED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("account", "qos", "wckey", "comment"), "nothing is accounted by it"),
    **dict.fromkeys(("mail-type", "mail-user"), "no mail is sent"),
    **dict.fromkeys(("exclusive", "oversubscribe", "share", "overcommit"),
                    "a container has what it asks for, and hosts are shared"),
    **dict.fromkeys(("nice", "kill-on-invalid-dep", "time-min", "clusters", "get-user-env"),
                    "it has no meaning here"),
    **dict.fromkeys(("constraint",), "hosts have no features; the partition tells what they are"),
    **dict.fromkeys(("container-mount-home", "no-container-mount-home", "container-remap-root",
                     "no-container-remap-root", "container-entrypoint", "no-container-entrypoint",
                     "container-writable", "container-readonly", "container-name"),
                    "each job has a container of its own"),
    **{row.split("/")[0].rstrip("=?"): "the engines bind nothing" for row in _PASSED_OVER.split()},
}  # fmt: skip
"""Taken, without effect, and why."""

REFUSED: Final[Mapping[str, str]] = {
    "nodelist": "hosts can't be named; use a partition, or: phalanx node drain HOST",
    "exclude": "hosts can't be left out; use a partition, or: phalanx node drain HOST",
    "reservation": "there are no reservations; hold hosts by: phalanx node drain HOST",
    "nodefile": "hosts can't be named; use a partition",
    "uid": "jobs are of the token's user",
    "gid": "jobs are of the token's user",
    "export-file": "variables come from the environment; see --export",
    "container": "OCI bundles can't be run; use --container-image",
    "container-id": "OCI bundles can't be run; use --container-image",
    "het-group": "only in a job of several parts (#SBATCH hetjob) is there a choice",
    "multi-prog": "all tasks run the same command; let it look at SLURM_PROCID",
    "no-allocate": "tasks run in containers; there is no way around them",
    "container-save": "containers can't be saved; build an image",
    "batch": "hosts have no features",
}
"""Never taken, and what to do."""


def ignored(given: Given) -> tuple[str, ...]:
    """Tell what of the options has no effect here, a sentence for each reason."""
    why: dict[str, list[str]] = {}
    for long in given:
        if long in IGNORED:
            why.setdefault(IGNORED[long], []).append(f"--{long}")
    return tuple(f"{', '.join(names)}: {reason}" for reason, names in why.items())


def check(given: Given) -> None:
    """Refuse what can't be kept.

    Raises:
        WrongError: with what to do instead.
    """
    for long in given:
        if long in REFUSED:
            raise WrongError(f"--{long}: {REFUSED[long]}")
    if given.get("begin", "now").lower() != "now":
        raise WrongError("--begin: a job begins when there is room; hold it: sbatch --hold")


def usual(program: str) -> tuple[str, ...]:
    """Options that may come from variables such as `SBATCH_PARTITION`, all but those that only
    make sense on a command line.
    """
    options = {"SBATCH": SBATCH, "SALLOC": SALLOC}[program]
    return tuple(long for long in options.names if long not in _NEVER_BY_VARIABLE)


_NEVER_BY_VARIABLE: Final = ("help", "usage", "version", "hold", "parsable", "wrap", "test-only",
                             "quiet", "verbose")  # fmt: skip
