"""A host's own view of the file system, shared by its engine and its agent.

The mount namespace has no name: the supervisor holds it by a file descriptor, and it ends with
the last process in it. What the machine mounts later appears inside; what a host mounts stays in.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace

from phalanx_lab import engine_root, switch
from phalanx_lab.machine import run
from phalanx_lab.plan import Plan
from phalanx_lab.unavailable import Unavailable

CGROUPS = "/sys/fs/cgroup"
RESOLVER = "/etc/resolv.conf"


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


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where a host's daemons run: the same place, unless the engine has a root of its own."""

    agent: Room
    engine: Room


def open_rooms(plan: Plan, host: int) -> Rooms:
    """Make a host's namespaces and everything in them that differs from the machine's."""
    mounts, name = _new_namespaces([])
    room = Room(mounts, name, plan.netns(f"h{host}"))
    private = _private(plan, host)
    aside = f"{plan.host_run(host)}/cgroup"
    os.makedirs(aside, exist_ok=True)
    # A fresh sysfs shows the host's own interfaces; the cgroup tree must be carried over it.
    steps = [
        ["hostname", plan.host_name(host)],
        ["mount", "--rbind", CGROUPS, aside],
        ["mount", "-t", "sysfs", "sysfs", "/sys"],
        ["mount", "--rbind", aside, CGROUPS],
        ["umount", "--recursive", "--lazy", aside],
        *(["mount", "--bind", own, place] for place, own in private.items()),
        ["mount", "--make-rshared", "/"],  # what the agent mounts, its engine sees
    ]
    for step in steps:
        run(room.enter(step))
    if not plan.engine_root:
        return Rooms(agent=room, engine=room)
    inner, other_name = _new_namespaces(room.enter([]))
    os.close(other_name)
    other = replace(room, mounts=inner)
    for step in engine_root.entering(plan.engine_root, (plan.state, plan.run), private):
        run(other.enter(step))
    return Rooms(agent=room, engine=other)


def _private(plan: Plan, host: int) -> dict[str, str]:
    """Places that engines share by default and that each host has for itself.

    Sockets of shims and plugins, the engine's identity, a system containerd that it must not
    find, and the resolver, which is that of the lab's own way out.
    """
    told = {
        "/run/containerd": f"{plan.host_run(host)}/containerd",
        "/run/docker": f"{plan.host_run(host)}/docker",
        "/etc/docker": f"{plan.host_state(host)}/etc-docker",
    }
    for place, own in told.items():
        os.makedirs(own, exist_ok=True)
        os.makedirs(place, exist_ok=True)
    if os.path.exists(RESOLVER):
        told[RESOLVER] = f"{plan.state}/resolv.conf"
    return told


def _new_namespaces(inside: list[str]) -> tuple[int, int]:
    """Descriptors of a new mount and a new host-name namespace, derived from those inside.

    What the original mounts appears in the new one, never the reverse.
    """
    holder = subprocess.Popen(
        [*inside, "unshare", "--mount", "--uts", "--propagation", "slave", "cat"],
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
