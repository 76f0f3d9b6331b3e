"""What lies below and beside the engine: processes, namespaces, ports, files, rows."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path

from phalanx_lab import processes
from phalanx_lab.lab import Host, Lab

ROWS = {
    "kernels": "SELECT id FROM kernel WHERE agent IS NOT NULL AND state BETWEEN 100 AND 799",
    "networks": "SELECT name FROM network WHERE NOT released",
    "devices": "SELECT kernel FROM gpu_hold WHERE NOT released",
    "ports": "SELECT kernel FROM port_hold WHERE NOT released",
}
"""What the database says is held."""

NAMESPACE = re.compile("(?P<sandbox>[0-9a-f]{12})|(?P<overlay>[0-9]+-|lb_)[0-9a-z]+")
"""Of a container; of an overlay network, or of its load balancer. A swarm made anew has others."""
_SHIM = re.compile(r"containerd-shim")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
LISTENS = "0A"  # a TCP socket's state in /proc/net


def beneath(lab: Lab, host: Host) -> dict[str, tuple[str, ...]]:
    """What of sessions is on a host, where no engine tells it."""
    place, plan, engine = host.name, lab.plan, lab.pid(f"engine-{host.index}")
    inside = processes.in_cgroup(re.escape(plan.cgroup(host.index)))
    return {
        f"{place} processes": tuple(sorted(" ".join(processes.command(pid)) for pid in inside)),
        f"{place} shims": shims(plan.host_run(host.index)),
        f"{place} runtime": runtime(f"{plan.host_run(host.index)}/exec"),
        f"{place} mounts": mounts(engine, f"{plan.host_state(host.index)}/engine"),
        f"{place} namespaces": sandboxes(f"{plan.host_run(host.index)}/exec/netns", engine),
        f"{place} listeners": listeners(engine),
        f"{place} marks": names_in(f"{plan.host_state(host.index)}/agent/started"),
    }


def shims(run_folder: str) -> tuple[str, ...]:
    """Ids of the containers that have a shim, an engine's helper that outlives it."""
    found = []
    for pid in processes.pids():
        argv = processes.command(pid)
        if argv and _SHIM.search(argv[0]) and any(run_folder + "/" in word for word in argv):
            found.append(argv[argv.index("-id") + 1] if "-id" in argv else str(pid))
    return tuple(sorted(found))


def runtime(folder: str) -> tuple[str, ...]:
    """What an engine and its helpers keep of containers that they have begun."""
    kept = {
        "pipes": "containerd",
        "containerd": "containerd/daemon/io.containerd.runtime.v2.task/moby",
        "runc": "runtime-runc/moby",
    }
    return tuple(
        f"{whose} {one}"
        for whose, place in kept.items()
        for one in names_in(f"{folder}/{place}")
        if _CONTAINER.search(one)
    )


def mounts(engine: int, folder: str) -> tuple[str, ...]:
    """What is mounted for containers in an engine's own folder."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        places = (
            line.split()[4] for line in Path(f"/proc/{engine}/mountinfo").read_text().splitlines()
        )
        return tuple(sorted(place for place in places if place.startswith(f"{folder}/")))
    return ()


def sandboxes(folder: str, engine: int) -> tuple[str, ...]:
    """An engine's network namespaces for containers and overlay networks."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        # Mounted only while they are there; their files go at the engine's leisure.
        for line in Path(f"/proc/{engine}/mountinfo").read_text().splitlines():
            place = line.split()[4]
            name = place.removeprefix(f"{folder}/")
            if match := NAMESPACE.fullmatch(name):
                found.append(match["sandbox"] or f"{match['overlay']}*")
    return tuple(sorted(found))


def listeners(pid: int) -> tuple[str, ...]:
    """TCP ports that somebody listens at in a process's network, as hexadecimal addresses."""
    found = set()
    for family in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == LISTENS:
                    found.add(local)
    return tuple(sorted(found))


def names_in(folder: str) -> tuple[str, ...]:
    """The names in a folder that may not be there."""
    return tuple(sorted(os.listdir(folder))) if os.path.isdir(folder) else ()


def rows(lab: Lab) -> dict[str, tuple[str, ...]]:
    """What the manager's database says is held, spelled like the containers it is held for."""
    file = f"file:{lab.plan.state}/manager/phalanx.db?mode=ro"
    with contextlib.closing(sqlite3.connect(file, uri=True)) as database:
        return {
            f"database {what}": tuple(
                sorted(f"phx-{name.removeprefix('phx-')}" for (name,) in database.execute(query))
            )
            for what, query in ROWS.items()
        }
