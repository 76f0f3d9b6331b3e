from __future__ import annotations

import os

from phalanx_agent.core.recipe import Bind
from phalanx_agent.host.mounted import as_judged, compare

HOST = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 0:50 /export /data rw - nfs server:/export rw
24 22 8:2 / /data/fast\\040disk rw - xfs /dev/sdb1 rw
"""
ROOTFS = "90 80 0:99 / / rw - overlay overlay rw\n"


def container(*binds: tuple[str, str]) -> str:
    """A container's table with binds, each a device and a path on it."""
    rows = [f"9{n} 90 {dev} {path} /m{n} rw - x y rw" for n, (dev, path) in enumerate(binds)]
    return ROOTFS + "\n".join(rows) + "\n"


def test_sources_are_found_by_their_file_systems_and_paths_on_them() -> None:
    table = container(("8:1", "/home/u"), ("0:50", "/export/set"), ("8:2", "/x\\040y"))

    assert compare(HOST, table, ["/home/u", "/data/set", "/data/fast disk/x y"])


def test_a_folder_that_became_a_link_to_another_is_noticed() -> None:
    assert not compare(HOST, container(("8:1", "/etc")), ["/data/set"])
    assert not compare(HOST, container(("0:50", "/export")), ["/data/set"])
    assert not compare(HOST, ROOTFS, ["/data/set"])


def test_one_right_mount_does_not_cover_for_a_second_of_the_same_source() -> None:
    table = container(("0:50", "/export/set"), ("8:1", "/etc"))

    assert not compare(HOST, table, ["/data/set", "/data/set"])


def test_a_whole_file_system_can_be_a_source() -> None:
    assert compare(HOST, container(("8:2", "/"), ("8:1", "/")), ["/data/fast disk", "/"])


def test_a_container_without_such_a_mount_has_it_not_and_one_that_is_gone_has_nothing() -> None:
    source = [Bind("/no/such/folder", "/m")]

    assert not as_judged(os.getpid(), source)
    assert as_judged(0x7FFFFFFF, source)
