"""Whether this machine can carry a lab; what is missing is named all at once, with the cure."""

from __future__ import annotations

import os
import shutil
import tempfile

from phalanx_lab import engine_root
from phalanx_lab.machine import run, succeeds
from phalanx_lab.plan import Plan
from phalanx_lab.unavailable import Unavailable

TOOLS = {  # program: Debian package
    "dockerd": "docker.io",
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "sysctl": "procps",
    "hostname": "hostname",
}
ENGINE_TOOLS = {"dockerd", "containerd", "runc"}  # which another Debian may bring along
NEEDS_ROOT = "root is needed for network namespaces and engines: run it with sudo"
NEEDED_DISK = 2 * 2**30


def misses(plan: Plan) -> list[str]:
    """One sentence for each thing that is missing; empty on a machine that is fit."""
    if os.geteuid() != 0:
        return [NEEDS_ROOT]
    found = missing_tools(engines=not plan.engine_root)
    if plan.engine_root and not engine_root.dockerd(plan.engine_root):
        found.append(
            f"{plan.engine_root} has no dockerd: phalanx lab engine-root builds such a one"
        )
    if not found:
        found += _missing_kernel_parts(plan.state_root)
    free = _free_disk(plan.state_root)
    if free < NEEDED_DISK:
        found.append(
            f"{plan.state_root} has {free / 2**30:.1f} GiB free, 2 are needed: "
            "set PHALANX_LAB_DIR to a folder on a larger disk"
        )
    return found


def missing_tools(*, engines: bool) -> list[str]:
    """One sentence on all programs that are missing; `engines`: Docker's own too."""
    wanted = {tool for tool in TOOLS if engines or tool not in ENGINE_TOOLS}
    missing = sorted(tool for tool in wanted if not shutil.which(tool))
    if not missing:
        return []
    packages = " ".join(sorted({TOOLS[tool] for tool in missing}))
    return [f"{', '.join(missing)} not found: apt-get install -y {packages}"]


def _missing_kernel_parts(folder: str) -> list[str]:
    """Try each part of the kernel for real, in a namespace made for the purpose."""
    netns = f"phx-try-{os.getpid()}"
    try:
        run(["ip", "netns", "add", netns])
    except Unavailable as refused:
        return [f"network namespaces: {refused}"]
    link = f"ip -n {netns} link add"
    nat = f"nsenter --net=/run/netns/{netns} iptables -w -t nat"
    trials = {
        "bridge": f"{link} try-b type bridge",
        "veth": f"{link} try-v type veth peer name try-w",
        "vxlan": f"{link} try-x type vxlan id 7 dstport 4789",
        "iptables nat": f"{nat} -A POSTROUTING -j MASQUERADE",
    }
    try:
        found = [
            f"the kernel has no {part}: modprobe {part.replace(' ', '_')}, or another kernel"
            for part, line in trials.items()
            if not succeeds(line.split())
        ]
    finally:
        run(["ip", "netns", "delete", netns])
    if not _overlay_works(folder):
        found.append(
            f"no overlay mount on {folder}: modprobe overlay; "
            "inside a container set PHALANX_LAB_DIR to a volume"
        )
    return found


def _overlay_works(folder: str) -> bool:
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".try-", dir=folder) as top:
        for part in ("lower", "upper", "work", "merged"):
            os.mkdir(f"{top}/{part}")
        options = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
        mount = ["unshare", "--mount", "mount", "-t", "overlay"]
        return succeeds([*mount, "-o", options, "overlay", f"{top}/merged"])


def _free_disk(folder: str) -> int:
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return shutil.disk_usage(folder).free
