"""Which folder of the world a path of this host is, so that two hosts can be compared."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from phalanx_agent.host import mounts
from phalanx_agent.host.mounts import Mount

_LOCAL: Final = frozenset(
    {
        *("btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs"),
        *("tmpfs", "vfat", "xfs", "zfs"),
    }
)
"""File systems that no two machines have at once. Of others, like NFS or FUSE, one cannot tell."""

_MOUNT_ID: Final = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


def place(path: str, boot_id: str) -> str:
    """Name the folder: equal names are the same folder, different ones are different folders. Empty
    where other hosts may have it, or something that is mounted in it, under a name of theirs.

    `path` is absolute and leads through no link.

    Hosts that share a kernel, as those of a lab, have one boot id: the same device and number is
    the same folder there.

    Raises:
        OSError: it is not there.
    """
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        held = os.fstat(descriptor)
        told = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    finally:
        os.close(descriptor)
    found = _MOUNT_ID.search(told)
    table = tuple(mounts.read(mounts.TABLE.read_text(errors="surrogateescape")))
    if found is None or file_system(table, found[1]) not in _LOCAL:
        return ""
    if not _LOCAL.issuperset(within(table, path)):
        return ""
    return f"{boot_id}:{held.st_dev}:{held.st_ino}"


def within(table: Iterable[Mount], path: str) -> Iterator[str]:
    """Walk the kinds of what is mounted somewhere in a folder."""
    start = f"{path.rstrip('/')}/"
    return (mount.kind for mount in table if mount.point.startswith(start))


def file_system(table: Iterable[Mount], number: str) -> str:
    """Find the kind of a mount; empty when it is not there (any more)."""
    return next((mount.kind for mount in table if mount.number == number), "")
