"""Whether a file lies on a disk of this host: elsewhere its lock and its log cannot be trusted."""

from __future__ import annotations

import os
from typing import Final

from phalanx_manager.store.port import Unavailable

MOUNTS: Final = "/proc/self/mountinfo"
_SHARED: Final = frozenset({
    "afs", "beegfs", "ceph", "cifs", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs",
    "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs",
})  # fmt: skip


def refuse_shared(path: str, mounts: str = MOUNTS) -> None:
    """Refuse a file of which another host may have a part in its memory.

    Raises:
        Unavailable: its folder is on such a file system.
    """
    kind = _file_system(os.path.dirname(os.path.realpath(path)), mounts)
    if kind in _SHARED:
        raise Unavailable(
            path,
            f"cannot be trusted on {kind}, which several hosts share",
            "set data_dir to a folder on a disk of this host, or database to a PostgreSQL",
        )


def _file_system(folder: str, mounts: str) -> str:
    best, kind = "", ""
    with open(mounts, encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            left, _, right = line.partition(" - ")
            place = _unescaped(left.split()[4])
            inside = folder == place or folder.startswith(place.rstrip("/") + "/")
            if inside and len(place) >= len(best):
                best, kind = place, right.split()[0]
    return kind


def _unescaped(place: str) -> str:
    """The kernel writes blanks and the like as octal numbers."""
    return os.fsdecode(os.fsencode(place).decode("unicode_escape").encode("latin-1"))
