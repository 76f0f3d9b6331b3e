"""An engine's helpers, one for each container, that live on when nothing is left of it to help."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from dataclasses import dataclass
from typing import Final

from phalanx_agent.host import remains
from phalanx_agent.host.tools import ToolFailed

_PROGRAM: Final = "containerd-shim"
_NAMESPACE: Final = "moby"
"""containerd's name for the engine's containers; its plugins have shims as well, in another one."""

_SOCKET: Final = "containerd/containerd.sock"
"""In the folder of an engine that has started its containerd itself; its shims are told it."""


@dataclass(frozen=True, slots=True)
class Shim:
    """One: the container that it is for, and its process."""

    container: str
    pid: int

    @property
    def name(self) -> str:
        """As logs call its container."""
        return self.container[:12]


async def idle(folder: str) -> frozenset[Shim]:
    """Find an engine's shims in whose containers no process runs.

    Args:
        folder: the engine's, of what it keeps while it runs; of a nameless one there are none.
    """
    if not folder:
        return frozenset()
    return await asyncio.to_thread(_idle, f"{os.path.realpath(folder)}/{_SOCKET}")


def _idle(socket: str) -> frozenset[Shim]:
    found, running = set[Shim](), set[str]()
    for entry in os.listdir(remains.PROC):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                process = remains.PROC / entry
                words = process.joinpath("cmdline").read_text(errors="replace").split("\0")
                if container := _helped(words, socket):
                    found.add(Shim(container, int(entry)))
                elif words[0]:  # who has ended and waits for its parent has no words left
                    running.update(remains.ID.findall((process / "cgroup").read_text()))
    return frozenset(one for one in found if one.container not in running)


def _helped(words: list[str], socket: str) -> str:
    """Tell which container a process is the shim of, of an engine with this socket; else ''."""
    if not os.path.basename(words[0]).startswith(_PROGRAM):
        return ""
    told = dict(itertools.pairwise(words))
    container = told.get("-id", "")
    is_engines = told.get("-address") == socket and told.get("-namespace") == _NAMESPACE
    return container if is_engines and remains.ID.fullmatch(container) else ""


async def remove(shim: Shim) -> None:
    """End one, and what is left below it.

    Raises:
        ToolFailed: something of it does not end.
    """
    try:
        await remains.end(shim.container)
    except remains.RemainsStay as error:
        raise ToolFailed(str(error)) from error
