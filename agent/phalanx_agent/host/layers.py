"""First layers of containers, which an engine mounts for a moment while it makes a container."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from phalanx_agent.host import mounts
from phalanx_agent.host.mounts import Mount

_FIRST: Final = re.compile(r"[0-9a-z]{25,64}-init")
_KIND: Final = "overlay"


@dataclass(frozen=True, slots=True)
class Layer:
    """One that is mounted: the engine's folder, its own name in it, and the number of the mount."""

    folder: str
    name: str
    number: str


async def in_the_making(folder: str) -> frozenset[Layer]:
    """Find those in an engine's folder of layers that are mounted now; none in a nameless one."""
    if not folder:
        return frozenset()
    return mounted(await mounts.all_now(), os.path.realpath(folder))


def mounted(table: Iterable[Mount], folder: str) -> frozenset[Layer]:
    """Pick them out of a table of mounts."""
    found = set()
    for mount in table:
        top, _, name = os.path.dirname(mount.point).rpartition("/")
        if mount.kind == _KIND and top == folder and _FIRST.fullmatch(name):
            found.add(Layer(folder, name, mount.number))
    return frozenset(found)


async def remove(layer: Layer) -> None:
    """Unmount one.

    Raises:
        ToolFailed: it cannot be unmounted.
    """
    await mounts.unmount(os.path.join(layer.folder, layer.name, "merged"))
