"""Network namespaces that an engine has mounted by their names, in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from phalanx_agent.host.tools import run

PROC: Final = Path("/proc")
_NAMED: Final = re.compile(r"[0-9a-f]{12}|(?:[0-9]+-|lb_)[0-9a-z]+")
"""Of a container; of an overlay network and of its load balancer; not what engines always have."""

UMOUNT: Final = ("umount", "--lazy")
_KIND: Final = "nsfs"


@dataclass(frozen=True, slots=True)
class Namespace:
    """One that is mounted: the file's name, and the namespace as the kernel spells it."""

    name: str
    number: str


async def empty(folder: str) -> frozenset[Namespace]:
    """Find those in an engine's folder in which no process lives."""
    return await asyncio.to_thread(_empty, os.path.realpath(folder))


async def remove(folder: str, namespace: Namespace) -> None:
    """Unmount one, with which it ends.

    Raises:
        ToolFailed: it cannot be unmounted.
    """
    path = os.path.join(os.path.realpath(folder), namespace.name)
    await run(*UMOUNT, path)
    with contextlib.suppress(FileNotFoundError):  # an engine's own broom was faster
        os.unlink(path)


def _empty(folder: str) -> frozenset[Namespace]:
    found = mounted((PROC / "self/mountinfo").read_text(errors="surrogateescape"), folder)
    if not found:
        return found
    inhabited = _inhabited()
    return frozenset(one for one in found if one.number not in inhabited)


def mounted(table: str, folder: str) -> frozenset[Namespace]:
    """Read off a table of mounts (proc(5), mountinfo) the namespaces in a folder."""
    found = set()
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        number, place = before.split(" ")[3:5]
        name = place.removeprefix(f"{folder}/")
        if after.startswith(f"{_KIND} ") and name != place and _NAMED.fullmatch(name):
            found.add(Namespace(name, number))
    return frozenset(found)


def _inhabited() -> frozenset[str]:
    """Find the network namespaces of all processes that may be looked at: those of containers."""
    found = set()
    for entry in os.listdir(PROC):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                found.add(os.readlink(PROC / entry / "ns/net"))
    return frozenset(found)
