"""First layers of containers, which an engine mounts for a moment while it makes a container."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from phalanx_agent.host.tools import run

MOUNTS: Final = Path("/proc/self/mountinfo")
UMOUNT: Final = ("umount", "--lazy")
_FIRST: Final = re.compile(r"[0-9a-z]{25,64}-init")
_KIND: Final = "overlay"


@dataclass(frozen=True, slots=True)
class Layer:
    """One that is mounted: its folder's name, and the number of the mount."""

    name: str
    number: str


async def in_the_making(folder: str) -> frozenset[Layer]:
    """Find those in an engine's folder of layers that are mounted now; none in a nameless one."""
    if not folder:
        return frozenset()
    table = await asyncio.to_thread(MOUNTS.read_text, errors="surrogateescape")
    return mounted(table, os.path.realpath(folder))


def mounted(table: str, folder: str) -> frozenset[Layer]:
    """Read them off a table of mounts (proc(5), mountinfo)."""
    found = set()
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        words = before.split(" ")
        top, _, name = os.path.dirname(words[4]).rpartition("/")
        if after.startswith(f"{_KIND} ") and top == folder and _FIRST.fullmatch(name):
            found.add(Layer(name, words[0]))
    return frozenset(found)


async def remove(folder: str, layer: Layer) -> None:
    """Unmount one.

    Raises:
        ToolFailed: it cannot be unmounted.
    """
    await run(*UMOUNT, os.path.join(os.path.realpath(folder), layer.name, "merged"))
