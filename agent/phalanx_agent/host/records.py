"""What is kept of a container that was begun: folders called by its id.

The engine's own has the pipes of the container's output; one that has lost the container does not
look for it. containerd removes its own when the container ends, and whatever it does not know at
its next start. But where its database still has the container, and the helper had died before it
wrote down what it had begun, it fails to remove the folder at each of its starts, and goes on. What
it is about to remove it calls by the id with a dot before it; where it died just then it looks for
that no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from typing import Final

from phalanx_agent.host import mounts, remains
from phalanx_agent.host.tools import ToolFailed

PLACES: Final = (
    "containerd",
    "containerd/daemon/io.containerd.runtime.v2.task/moby",
    "runtime-runc/moby",
)
"""In the folder of an engine: its own; where it has started its containerd itself, containerd's and
runc's.
"""

_NAMED: Final = re.compile(r"\.?[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Record:
    """One: the folder that it lies in, the name of its own folder, and the number of that."""

    folder: str
    name: str
    number: int

    @property
    def container(self) -> str:
        """The id of the container that it is of."""
        return self.name.removeprefix(".")


async def unborne(folder: str) -> frozenset[Record]:
    """Find those of containers whose id no process bears.

    Args:
        folder: the engine's, of what it keeps while it runs; in a nameless one there are none.
    """
    if not folder:
        return frozenset()
    return await asyncio.to_thread(_unborne, os.path.realpath(folder))


def _unborne(folder: str) -> frozenset[Record]:
    found = set()
    for place in PLACES:
        with contextlib.suppress(FileNotFoundError), os.scandir(f"{folder}/{place}") as entries:
            found |= {
                Record(f"{folder}/{place}", entry.name, entry.inode())
                for entry in entries
                if _NAMED.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            }
    borne = remains.borne() if found else frozenset()
    return frozenset(one for one in found if one.container not in borne)


async def remove(record: Record) -> None:
    """Remove one.

    Raises:
        ToolFailed: something is mounted in it, or the disk refuses.
    """
    path = os.path.join(record.folder, record.name)
    within = [
        mount.point for mount in await mounts.all_now() if f"{mount.point}/".startswith(f"{path}/")
    ]
    if within:
        raise ToolFailed(f"{within[0]} is mounted in it")
    try:
        await asyncio.to_thread(shutil.rmtree, path)
    except FileNotFoundError:
        return  # containerd was faster
    except OSError as error:
        raise ToolFailed(f"it cannot be removed: {error}") from error
