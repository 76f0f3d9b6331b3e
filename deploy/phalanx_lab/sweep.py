"""Clearing away what a lab has put on the machine, whoever left it there and in what state.

The same few steps end a running lab, a failed start and the remains of a killed supervisor.
Everything is found by the lab's name, so no list of what was made has to survive.
"""

from __future__ import annotations

import os
import re
import shutil
import time

from phalanx_lab import processes, switch
from phalanx_lab.machine import mounts_under, run
from phalanx_lab.unavailable import Unavailable

CGROUPS = "/sys/fs/cgroup"


def sweep(lab: str, run_folder: str) -> None:
    """End a lab's processes and remove its mounts, namespaces, cgroups and runtime directory."""
    left = processes.kill_all(lambda: members(lab, run_folder))
    if left:
        raise Unavailable(
            f"processes {sorted(left)}", "do not end", "Look at them with ps; try again."
        )
    for netns in switch.namespaces(lab):
        run(["ip", "netns", "delete", netns])
    for point in mounts_under(run_folder):
        run(["umount", "--lazy", point])
    for folder in cgroups(lab):
        _remove_cgroup(folder)
    shutil.rmtree(run_folder, ignore_errors=False, onerror=_gone_is_fine)


def members(lab: str, run_folder: str) -> set[int]:
    """Processes of a lab: in its namespaces, in its cgroups, or its engines' own children."""
    networks = {os.stat(switch.path(name)).st_ino for name in switch.namespaces(lab)}
    found = processes.in_cgroup(rf"phx{lab}-h\d+")
    for pid in processes.pids():
        argv = processes.command(pid)
        engines = processes.is_engine_program(argv) and any(run_folder + "/" in a for a in argv)
        uplink = f"{switch.path('phx' + lab)}-sw" in argv and "slirp4netns" in argv[0]
        if engines or uplink or processes.network_of(pid) in networks:
            found.add(pid)
    return found - {os.getpid()}


def cgroups(lab: str) -> list[str]:
    """Top cgroup directories of a lab, in the unified hierarchy or in each of the old ones."""
    wanted = re.compile(rf"phx{lab}-h\d+")
    found = []
    for top in (CGROUPS, *(entry.path for entry in os.scandir(CGROUPS) if entry.is_dir())):
        found += [entry.path for entry in os.scandir(top) if wanted.fullmatch(entry.name)]
    return found


def _remove_cgroup(folder: str, within: float = 5) -> None:
    """Remove a cgroup and all below it; the kernel may call it busy for a moment after a kill."""
    deadline = time.monotonic() + within
    for path, _, _ in os.walk(folder, topdown=False):
        while True:
            try:
                os.rmdir(path)
                break
            except FileNotFoundError:
                break
            except OSError as busy:
                if time.monotonic() > deadline:
                    raise Unavailable(path, "is still in use", "Try `down` again.") from busy
                time.sleep(0.02)


def _gone_is_fine(_call: object, _path: str, error: tuple[object, BaseException, object]) -> None:
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]
