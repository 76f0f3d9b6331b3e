"""Network namespaces that an engine has mounted by their names, in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from phalanx_agent.host import mounts
from phalanx_agent.host.mounts import Mount

PROC: Final = Path("/proc")
_NAMED: Final = re.compile(r"[0-9a-f]{12}|(?:[0-9]+-|lb_)(?P<network>[0-9a-z]+)")
"""Of a container; of an overlay network and of its load balancer; not what engines always have."""

_KIND: Final = "nsfs"


@dataclass(frozen=True, slots=True)
class Namespace:
    """One that is mounted.

    Attributes:
        folder: the engine's.
        name: of the file.
        number: the namespace as the kernel spells it.
        network: the beginning of the id of the overlay network whose it is; empty where it is a
            container's, whose sandbox's id then begins with the name.
    """

    folder: str
    name: str
    number: str
    network: str


async def empty(folder: str) -> frozenset[Namespace]:
    """Find those in an engine's folder in which no process lives; none in a nameless one."""
    if not folder:
        return frozenset()
    found = mounted(await mounts.all_now(), os.path.realpath(folder))
    if not found:
        return found
    inhabited = await asyncio.to_thread(_inhabited)
    return frozenset(one for one in found if one.number not in inhabited)


async def remove(namespace: Namespace) -> None:
    """Unmount one, with which it ends.

    Raises:
        ToolFailed: it cannot be unmounted.
    """
    path = os.path.join(namespace.folder, namespace.name)
    await mounts.unmount(path)
    with contextlib.suppress(FileNotFoundError):  # an engine's own broom was faster
        os.unlink(path)


def mounted(table: Iterable[Mount], folder: str) -> frozenset[Namespace]:
    """Pick out of a table of mounts the namespaces in a folder."""
    found = set()
    for mount in table:
        top, _, name = mount.point.rpartition("/")
        match = _NAMED.fullmatch(name)
        if mount.kind == _KIND and top == folder and match:
            found.add(Namespace(folder, name, mount.root, match["network"] or ""))
    return frozenset(found)


def _inhabited() -> frozenset[str]:
    """Find the network namespaces of all processes that may be looked at: those of containers."""
    found = set()
    for entry in os.listdir(PROC):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                found.add(os.readlink(PROC / entry / "ns/net"))
    return frozenset(found)
