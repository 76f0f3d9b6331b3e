"""What is asked of a lab, judged before anything is touched."""

from __future__ import annotations

import os
import shutil
from typing import TypedDict, Unpack

from phalanx_lab import plan as plans
from phalanx_lab import switch
from phalanx_lab.machine import cores, memory_bytes
from phalanx_lab.plan import Plan


class Options(TypedDict, total=False):
    """What may be asked of a lab beside its size."""

    cpu: int  # cores that each agent advertises; without it 16, or more on a larger machine
    mem: int  # bytes that each agent advertises; without it the machine's memory
    engines_only: bool  # no manager, no agents
    engine_root: str  # another Debian to take the engines from
    nat: tuple[str, ...]  # names of hosts behind a router that masquerades them
    bare: tuple[str, ...]  # names of hosts that have an engine and no agent
    mounts: tuple[str, ...]  # folders that sessions may mount, `PATH` to read or `PATH:rw`
    manager: dict[str, str | float]  # settings of the manager's configuration
    agent: dict[str, str | float | bool]  # settings of every agent's configuration
    manager_module: str  # what Python runs as the manager, found by PYTHONPATH
    agent_module: str  # the same for each agent


def wish(name: str, nodes: int, **options: Unpack[Options]) -> Plan:
    """A lab as it is wanted; `ValueError` when there cannot be such a one.

    Agents may advertise more cores than there are: tests place many small containers.
    """
    cpu, mem = options.get("cpu", 0), options.get("mem", 0)
    if cpu < 0 or mem < 0:
        raise ValueError("cpus and memory are positive")
    root = options.get("engine_root", "")
    uplink = bool(shutil.which("slirp4netns")) and switch.machine_has_default_route()
    return Plan(
        name=plans.check_name(name),
        nodes=plans.check_nodes(nodes),
        cpu=cpu or max(16, cores()),
        mem=mem or memory_bytes(),
        subnet=0,
        state_root=plans.state_root(),
        run_root=plans.run_root(),
        engines_only=options.get("engines_only", False),
        engine_root=os.path.abspath(root) if root else "",
        nat=tuple(check_host(host, nodes) for host in options.get("nat", ())),
        bare=tuple(check_host(host, nodes) for host in options.get("bare", ())),
        mounts=tuple(check_mount(mount) for mount in options.get("mounts", ())),
        manager=options.get("manager", {}),
        agent=options.get("agent", {}),
        manager_module=options.get("manager_module", "phalanx_manager"),
        agent_module=options.get("agent_module", "phalanx_agent"),
        way_out=uplink,
    )


def check_host(name: str, nodes: int) -> int:
    """The number of a host; `ValueError` when the lab has none of that name."""
    number = name.removeprefix("host")
    if not (name.startswith("host") and number.isdigit() and 1 <= int(number) <= nodes):
        raise ValueError(f"there is no {name[:40]!r}; the hosts are host1 to host{nodes}")
    return int(number)


def check_mount(mount: str) -> str:
    """The folder by its absolute path; `ValueError` when there is none."""
    path = mount.removesuffix(":rw")
    if not os.path.isdir(path):
        raise ValueError(f"mount {path[:80]!r} is no folder")
    return os.path.abspath(path) + mount.removeprefix(path)
