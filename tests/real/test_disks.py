"""The database on disks that are full or read-only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx_manager.store.database import Database
from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.tables import Writes

pytestmark = pytest.mark.real


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_refuses_what_is_new_and_keeps_what_was_said(small_disk: Path) -> None:
    database = Database.open(str(small_disk / "phalanx.db"))
    settled: list[bool] = []

    async def put(key: str, value: str) -> None:
        writes = Writes()
        writes.run("meta_set", {"key": key, "value": value})
        await database.commit(writes, settled.append)

    await put("small", "kept")
    with pytest.raises(Unavailable, match=r"cannot be written: .*make room on the disk; running"):
        await put("big", "x" * (3 << 20))
    after = await database.read("meta_get", {"key": "small"})
    await put("again", "fits")

    assert [("kept",)] == after
    assert [] == await database.read("meta_get", {"key": "big"})
    assert [True, False, True] == settled
    database.close()


def test_a_file_system_that_is_read_only_is_told(small_disk: Path) -> None:
    Database.open(str(small_disk / "phalanx.db")).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with pytest.raises(Unavailable, match="cannot be opened: Read-only file system"):
        Database.open(str(small_disk / "phalanx.db"))
