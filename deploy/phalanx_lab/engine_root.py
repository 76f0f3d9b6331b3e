"""A second generation of engines without a registry: Docker from another Debian, in a folder.

A lab whose engines come from there finds out whether agents get along with a newer engine.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable

from phalanx_lab import recipes, status

SUITE = "sid"
PACKAGES = ("docker.io", "iptables", "iproute2", "ca-certificates", "kmod", "procps")
MACHINE = ".machine"  # where the machine's own root is for a moment
# What belongs to an operating system comes from the other Debian, all else from the machine.
SYSTEM = {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "lost+found"}
SYSTEM |= {"proc", "run", "sbin", "sys", "usr", "var", MACHINE}


def build(suite: str, report: Callable[[str], None]) -> str:
    """Make such a folder, or find it in the cache; its path."""
    folder = f"{recipes.cache()}/engine-root/{suite}"
    claim = status.Lock(os.path.dirname(folder), suite, "build")
    claim.take(wait=True)
    try:
        if not dockerd(folder):
            shutil.rmtree(folder, ignore_errors=True)
            fresh = f"{folder}.new"
            shutil.rmtree(fresh, ignore_errors=True)
            report(f"installing Debian {suite} with Docker (once; it is kept in {folder})")
            recipes.debootstrap(suite, fresh, PACKAGES, report)
            os.rename(fresh, folder)
    finally:
        claim.drop(remove=True)
    return folder


def dockerd(folder: str) -> str:
    """The engine's program in a root; empty when there is none."""
    return next(iter(glob.glob(f"{folder}/usr/*bin/dockerd")), "")


def shared_folders(kept: tuple[str, ...]) -> list[str]:
    """What of the machine an engine of another root must see at its own place.

    Those are the folders that users may mount, and what the lab keeps.
    """
    top = [
        entry.path
        for entry in os.scandir("/")
        if entry.is_dir(follow_symlinks=False) and entry.name not in SYSTEM
    ]
    return sorted(top) + [path for path in kept if path.split("/")[1] in SYSTEM]


def entering(root: str, kept: tuple[str, ...], private: dict[str, str]) -> list[list[str]]:
    """The commands that make a mount namespace see another root.

    `private` maps places to what an engine has there for itself. `pivot_root`, since an engine
    below a plain chroot cannot load images.
    """
    steps = [["mount", "--bind", root, root], ["mount", "-t", "tmpfs", "tmpfs", f"{root}/run"]]
    for path in ["/proc", "/sys", "/dev", *shared_folders(kept)]:
        steps += [["mkdir", "-p", f"{root}{path}"], ["mount", "--rbind", path, f"{root}{path}"]]
    for place, own in private.items():
        if os.path.isdir(own):
            steps.append(["mkdir", "-p", f"{root}{place}"])
        else:
            steps.append(["touch", f"{root}{place}"])
        steps.append(["mount", "--bind", own, f"{root}{place}"])
    return [
        *steps,
        ["mkdir", "-p", f"{root}/{MACHINE}"],
        ["pivot_root", root, f"{root}/{MACHINE}"],
        ["umount", "--lazy", f"/{MACHINE}"],
    ]
