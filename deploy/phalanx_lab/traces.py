"""What of a lab is on the machine: the check that `down` leaves nothing, for tests and doubters."""

from __future__ import annotations

import os

from phalanx_lab import plan as plans
from phalanx_lab import processes, sweep, switch
from phalanx_lab.machine import mounts_under, run


def of(lab: str) -> list[str]:
    """One line for each process, namespace, mount, cgroup and folder of a lab."""
    run_folder = f"{plans.run_root()}/{lab}"
    state_folder = f"{plans.state_root()}/{lab}"
    living = {pid for pid in sweep.members(lab, run_folder) if processes.alive(pid)}
    return [
        *(f"process {pid}: {' '.join(processes.command(pid))}" for pid in sorted(living)),
        *(f"namespace {name}" for name in switch.namespaces(lab)),
        *(f"mount {point}" for top in (run_folder, state_folder) for point in mounts_under(top)),
        *(f"cgroup {folder}" for folder in sweep.cgroups(lab)),
        *(f"folder {path}" for path in (run_folder, state_folder) if os.path.exists(path)),
    ]


def machine_network() -> list[str]:
    """The machine's own interfaces, routes and firewall rules, which no lab may change."""
    rules = [line for line in run(["iptables-save"]).splitlines() if not line.startswith("#")]
    links = [line.split(":")[1].strip() for line in run(["ip", "-o", "link"]).splitlines()]
    return [*links, *run(["ip", "route"]).splitlines(), *rules]
