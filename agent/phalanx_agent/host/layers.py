"""Layers of containers that stay mounted when nobody needs them.

An engine mounts a container's first layer for a moment while it makes the container. Of a container
whose engine's folder was emptied as it ran the mount is all that is left.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from phalanx_agent.host import mounts
from phalanx_agent.host.mounts import Mount

_FIRST: Final = re.compile(r"[0-9a-z]{25,64}-init")
_CONTAINERS: Final = re.compile(r"[0-9a-f]{64}")
_CONTENT: Final = "diff"
"""In the folder of every layer that an engine has."""

_PLACE: Final = "merged"
_KIND: Final = "overlay"


@dataclass(frozen=True, slots=True)
class Layer:
    """One that is mounted: the engine's folder, its own name in it, and the number of the mount."""

    folder: str
    name: str
    number: str


async def needless(folder: str) -> frozenset[Layer]:
    """Find those in an engine's folder of layers that are mounted now: of containers in the making,
    and of containers that are lost. None in a nameless one.
    """
    if not folder:
        return frozenset()
    table, place = await mounts.all_now(), os.path.realpath(folder)
    lost = {layer for layer in mounted(table, place, _CONTAINERS) if _is_empty(layer)}
    return mounted(table, place) | lost


def mounted(
    table: Iterable[Mount], folder: str, names: re.Pattern[str] = _FIRST
) -> frozenset[Layer]:
    """Pick them out of a table of mounts, by default the first ones."""
    found = set()
    for mount in table:
        top, _, name = os.path.dirname(mount.point).rpartition("/")
        if mount.kind == _KIND and top == folder and names.fullmatch(name):
            found.add(Layer(folder, name, mount.number))
    return frozenset(found)


async def remove(layer: Layer) -> None:
    """Unmount one; of a lost one the folders go, too, which kept whoever emptied the engine's.

    Raises:
        ToolFailed: it cannot be unmounted.
    """
    place = os.path.join(layer.folder, layer.name)
    await mounts.unmount(os.path.join(place, _PLACE))
    if _is_empty(layer):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(place, _PLACE))
            os.rmdir(place)


def _is_empty(layer: Layer) -> bool:
    return not os.path.lexists(os.path.join(layer.folder, layer.name, _CONTENT))
