"""A host's own view of the file system, shared by its engine and its agent.

The mount namespace has no name: the supervisor holds it by a file descriptor, and it ends with
the last process in it. What the machine mounts later appears inside; what a host mounts stays in.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from phalanx_lab import switch
from phalanx_lab.machine import run
from phalanx_lab.plan import Plan
from phalanx_lab.unavailable import Unavailable

CGROUPS = "/sys/fs/cgroup"
# Folders that engines share by default and that each host must have for itself: shims' sockets
# and plugins by address, the engine's identity, and a system containerd it must not find.
PRIVATE = {"containerd": "/run/containerd", "docker": "/run/docker", "etc-docker": "/etc/docker"}


@dataclass(frozen=True, slots=True)
class Room:
    """A host's namespaces: `mounts` and `name` are descriptors of this process."""

    mounts: int
    name: int  # which host name is seen, by the engine, the swarm and the agent
    netns: str

    def enter(self, argv: list[str]) -> list[str]:
        """The argument list that runs a program inside, in the same process."""
        own = f"/proc/{os.getpid()}/fd"
        spaces = [f"--mount={own}/{self.mounts}", f"--uts={own}/{self.name}"]
        return ["nsenter", *spaces, f"--net={switch.path(self.netns)}", *argv]


def open_room(plan: Plan, host: int) -> Room:
    """Make a host's mount namespace and everything in it that differs from the machine's."""
    room = Room(*_new_namespaces(), plan.netns(f"h{host}"))
    aside = f"{plan.host_run(host)}/cgroup"
    os.makedirs(aside, exist_ok=True)
    # A fresh sysfs shows the host's own interfaces; the cgroup tree must be carried over it.
    steps = [
        ["hostname", plan.host_name(host)],
        ["mount", "--rbind", CGROUPS, aside],
        ["mount", "-t", "sysfs", "sysfs", "/sys"],
        ["mount", "--rbind", aside, CGROUPS],
        ["umount", "--recursive", "--lazy", aside],
    ]
    for name, shared in PRIVATE.items():
        root = plan.host_state(host) if name.startswith("etc") else plan.host_run(host)
        own = f"{root}/{name}"
        os.makedirs(own, exist_ok=True)
        os.makedirs(shared, exist_ok=True)
        steps.append(["mount", "--bind", own, shared])
    if os.path.exists("/etc/resolv.conf"):
        steps.append(["mount", "--bind", f"{plan.state}/resolv.conf", "/etc/resolv.conf"])
    for step in steps:
        run(room.enter(step))
    return room


def _new_namespaces() -> tuple[int, int]:
    """Descriptors of a new mount and a new host-name namespace.

    What the machine mounts appears in the former, never the reverse.
    """
    holder = subprocess.Popen(
        ["unshare", "--mount", "--uts", "--propagation", "slave", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    with holder:
        if holder.stdin is None or holder.stdout is None:
            raise AssertionError("pipes were asked for")
        holder.stdin.write(b"!")
        if holder.stdout.read(1) != b"!":  # an echo proves that `cat` runs in the new namespace
            raise Unavailable(
                "unshare --mount", "was refused", "A lab needs root and mount namespaces."
            )
        mounts, name = (
            os.open(f"/proc/{holder.pid}/ns/{kind}", os.O_RDONLY) for kind in ("mnt", "uts")
        )
        holder.stdin.close()
    return mounts, name


def memory(plan: Plan, host: int) -> None:
    """Mount the tmpfs of a host's agent, before the host's own view is made."""
    folder = plan.agent_memory(host)
    os.makedirs(folder, exist_ok=True)
    options = "mode=0700,size=64m,nosuid,nodev"
    run(["mount", "-t", "tmpfs", "-o", options, f"phx{plan.name}", folder])
