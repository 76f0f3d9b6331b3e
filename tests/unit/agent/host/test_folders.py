from __future__ import annotations

from pathlib import Path

import pytest

from phalanx_agent.config import AllowedMount
from phalanx_agent.host import allow, folders, inventory, mounts
from phalanx_wire.spec import Mount

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:50 /export /data rw - nfs4 server:/export rw
240 22 0:51 / /far rw shared:7 master:1 - fuse.sshfs me@far:/ rw
"""


def test_the_kind_of_a_mount_is_found_by_its_number() -> None:
    assert ["ext4", "nfs4", "fuse.sshfs", ""] == [
        folders.file_system(mounts.read(MOUNTS), number) for number in ("22", "23", "240", "24")
    ]


def test_what_is_mounted_in_a_folder_is_found_whatever_its_name() -> None:
    table = MOUNTS + "241 22 0:52 / /home/a\\040b rw - autofs auto rw\n"

    assert [["autofs"], [], []] == [
        list(folders.within(mounts.read(table), path)) for path in ("/home", "/hom", "/home/a b")
    ]


def test_a_folder_in_which_something_of_another_kind_is_mounted_has_no_name() -> None:
    assert "" == folders.place("/", "b")  # /proc is


def test_a_folder_on_a_local_disk_has_one_name_by_all_its_paths_and_none_of_another(
    tmp_path: Path,
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("one")
    names = [folders.place(str(tmp_path / name), "b") for name in ("one", "link", "other")]

    assert names[0] == names[1] != names[2]
    assert names[0].startswith("b:")
    assert names[0] != folders.place(str(tmp_path / "one"), "another start of a machine")


@pytest.mark.parametrize("path", ["/proc", "/sys"])
def test_what_is_no_local_file_system_has_no_name(path: str) -> None:
    assert "" == folders.place(path, "b")


def test_only_what_may_be_written_is_named(tmp_path: Path) -> None:
    asked = [Mount(str(tmp_path), "/a", read_only=False), Mount(str(tmp_path), "/b")]

    writable, other = allow.judge(asked, [AllowedMount(str(tmp_path), write=True)], [])

    assert folders.place(str(tmp_path), inventory.boot_id()) == writable.place
    assert "" == other.place
