"""Which folder of the world a path of this host is, so that two hosts can be compared."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LOCAL: Final = frozenset(
    {
        *("btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs"),
        *("tmpfs", "vfat", "xfs", "zfs"),
    }
)
"""File systems that no two machines have at once. Of others, like NFS or FUSE, one cannot tell."""

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
"""How the table spells blanks and backslashes in paths."""

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
    mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    if found is None or file_system(mounts, found[1]) not in _LOCAL:
        return ""
    if not _LOCAL.issuperset(within(mounts, path)):
        return ""
    return f"{boot_id}:{held.st_dev}:{held.st_ino}"


def within(mounts: str, path: str) -> Iterator[str]:
    """Walk the kinds of what is mounted somewhere in a folder, out of a table of mounts."""
    start = f"{path.rstrip('/')}/"
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if _ESCAPED.sub(_meant, before.split(" ")[4]).startswith(start):
            yield after.split(" ", 1)[0]


def _meant(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 8))


def file_system(mounts: str, number: str) -> str:
    """Find the kind of a mount in a table of mounts; empty when it is not there (any more)."""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ", 1)[0] == number:
            return after.split(" ", 1)[0]
    return ""
