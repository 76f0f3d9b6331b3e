"""Which folders of this host a session may mount; judged here, where the disk is seen."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from phalanx_agent.config import AllowedMount
from phalanx_agent.core.recipe import Bind
from phalanx_agent.core.refused import SHORTAGES, Refused
from phalanx_agent.host import folders, inventory
from phalanx_wire.spec import Mount

_NEVER: Final = (
    *("/proc", "/sys", "/dev", "/run/docker", "/var/lib/docker"),
    *("/run/containerd", "/var/lib/containerd"),
)


def judge(
    mounts: Sequence[Mount], allowed: Sequence[AllowedMount], own: Iterable[str | Path]
) -> tuple[Bind, ...]:
    """Say what is bound for a container's mounts.

    Args:
        own: the agent's and the engine's own places, which are never mounted; empty is none.

    Raises:
        Refused: a mount is not allowed, or not there.
        OSError: this host has nothing left to look at one with.
    """
    never = [os.path.realpath(path) for path in (*_NEVER, *own) if path]
    return tuple(_one(mount, allowed, never) for mount in mounts)


def _one(mount: Mount, allowed: Sequence[AllowedMount], never: Sequence[str]) -> Bind:
    """A link may lead anywhere, so what counts is where it leads to."""
    if not os.path.isabs(mount.source) or "\0" in mount.source:
        raise Refused(f"The mount of {mount.source!r} is not an absolute path.")
    real = os.path.realpath(mount.source)
    covering = [entry for entry in allowed if _inside(real, os.path.realpath(entry.path))]
    forbidden = any(_inside(real, bad) or _inside(bad, real) for bad in never)
    if not covering or forbidden or real == "/":
        raise Refused(
            f"Mounting {mount.source} is not allowed on this host; its agent's configuration "
            f"lists what is: [mounts] allow."
        )
    if not mount.read_only and not any(entry.write for entry in covering):
        raise Refused(f"Mounting {mount.source} for writing is not allowed on this host.")
    try:
        mode = os.stat(real).st_mode
        place = "" if mount.read_only else folders.place(real, inventory.boot_id())
    except OSError as error:
        if error.errno in SHORTAGES:
            raise
        raise Refused(f"{mount.source} cannot be mounted: {error.strerror}.") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise Refused(f"{mount.source} is neither a folder nor a file.")
    return Bind(real, mount.target, mount.read_only, place)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
