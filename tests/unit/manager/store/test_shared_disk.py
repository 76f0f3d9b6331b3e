"""A database on a disk that several hosts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.shared_disk import refuse_shared

LOCAL = "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"


def mounted(folder: Path, place: str, kind: str) -> str:
    """A table of mounts with one more than the root."""
    table = folder / "mountinfo"
    escaped = place.replace(" ", "\\040")
    table.write_text(f"{LOCAL}40 21 0:50 / {escaped} rw shared:9 - {kind} server:/x rw\n")
    return str(table)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "ceph", "fuse.sshfs", "lustre"])
def test_a_database_on_a_shared_disk_is_refused(tmp_path: Path, kind: str) -> None:
    mounts = mounted(tmp_path, "/geteilte Blöcke", kind)

    with pytest.raises(Unavailable, match=f"cannot be trusted on {kind}, .*set data_dir"):
        refuse_shared("/geteilte Blöcke/phalanx/phalanx.db", mounts)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay"])
def test_a_disk_of_this_host_is_fine(tmp_path: Path, kind: str) -> None:
    refuse_shared("/data/phalanx.db", mounted(tmp_path, "/data", kind))


def test_a_shared_disk_elsewhere_is_nobodys_trouble(tmp_path: Path) -> None:
    refuse_shared("/database/phalanx.db", mounted(tmp_path, "/data", "nfs4"))


def test_this_machines_own_table_is_understood(tmp_path: Path) -> None:
    refuse_shared(str(tmp_path / "phalanx.db"))
