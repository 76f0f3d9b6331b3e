"""The table of what is mounted, as this process sees it or another one does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from phalanx_agent.host.tools import run

TABLE: Final = Path("/proc/self/mountinfo")
UMOUNT: Final = ("umount", "--lazy")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
"""The kernel writes blanks and the like by their octal numbers."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A row of it (proc(5), mountinfo).

    Attributes:
        number: the mount's own; another one at the same place has another.
        device: of the file system, `major:minor`.
        root: what of the file system is mounted, a path in it.
        point: where.
        kind: of the file system, e.g. `overlay`.
    """

    number: str
    device: str
    root: str
    point: str
    kind: str


def read(table: str) -> Iterator[Mount]:
    """Read a table; the newest mounts are the last."""
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        number, _, device, root, point, *_ = before.split(" ")
        yield Mount(number, device, _unescaped(root), _unescaped(point), after.partition(" ")[0])


async def all_now() -> tuple[Mount, ...]:
    """Read this process's own."""
    return tuple(read(await asyncio.to_thread(TABLE.read_text, errors="surrogateescape")))


async def unmount(point: str) -> None:
    """Unmount what is there; who still uses it keeps it until then.

    Raises:
        ToolFailed: it cannot be unmounted.
    """
    await run(*UMOUNT, point)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
