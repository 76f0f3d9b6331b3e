from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx_agent.core.recipe import Account
from phalanx_agent.host import keys
from phalanx_agent.host.scratch import NotInMemory, Scratch, file_system
from phalanx_wire.ids import KernelId
from tests.support.hunger import files_of_at_most

KERNEL = KernelId("abcdefghijkl-1-0")
CONTAINER = "0a" * 32
USER = Account(12345, 12345)
TEXTS = {"hosts": "127.0.0.1 localhost\n", "ssh/ssh_config": "Host main1\n"}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in the host's memory."""
    folder = Path(f"/dev/shm/phalanx-test-{os.getpid()}")
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture
def scratch(memory: Path, tmp_path: Path) -> Scratch:
    return Scratch(memory / "run", tmp_path / "state")


def test_a_folder_on_a_disk_is_refused_with_the_way_out(tmp_path: Path) -> None:
    assert "tmpfs" != file_system(tmp_path), "this test needs a temporary folder on a disk"

    with pytest.raises(NotInMemory, match="mount -t tmpfs"):
        Scratch(tmp_path / "run", tmp_path / "state")


def test_private_keys_belong_to_the_container_and_are_read_by_nobody_else(scratch: Scratch) -> None:
    scratch.make(KERNEL, TEXTS, USER)

    for name in ("ssh/host_key", "ssh/id_ed25519"):
        found = os.stat(scratch.folder(KERNEL) / name)
        assert (12345, 12345, 0o400) == (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))
    assert 0o700 == stat.S_IMODE(os.stat(scratch.folder(KERNEL).parent).st_mode)


def test_public_keys_are_found_again_by_another_process(
    scratch: Scratch, memory: Path, tmp_path: Path
) -> None:
    made = scratch.make(KERNEL, TEXTS, USER)

    found = Scratch(memory / "run", tmp_path / "state").public_keys(KERNEL)

    assert made == found
    assert made.host.startswith("ssh-ed25519 ")
    assert made.host != made.user


def test_half_made_material_does_not_count_and_is_swept(
    scratch: Scratch, memory: Path, tmp_path: Path
) -> None:
    half = scratch.folder(KERNEL).with_name(f".{KERNEL}")
    half.mkdir()

    again = Scratch(memory / "run", tmp_path / "state")

    assert again.public_keys(KERNEL) is None
    assert not half.exists()


def test_material_for_which_there_is_half_the_room_leaves_nothing(
    scratch: Scratch, memory: Path
) -> None:
    with files_of_at_most(6000), pytest.raises(OSError, match="too large"):
        scratch.make(KERNEL, {**TEXTS, "ssh/known_hosts": "x" * 10_000}, USER)

    assert [] == list((memory / "run" / "k").iterdir())


def test_material_that_cannot_be_written_leaves_nothing(scratch: Scratch, memory: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        scratch.make(KERNEL, {"nowhere/x": ""}, USER)

    assert [] == list((memory / "run" / "k").iterdir())


def test_a_mark_outlives_the_process_and_clear_removes_everything(
    scratch: Scratch, memory: Path, tmp_path: Path
) -> None:
    scratch.make(KERNEL, TEXTS, USER)
    scratch.mark(KERNEL, CONTAINER)
    again = Scratch(memory / "run", tmp_path / "state")
    assert CONTAINER == again.begun(KERNEL)
    assert frozenset({KERNEL}) == again.kernels()

    again.clear(KERNEL)

    assert frozenset() == again.kernels()
    assert again.begun(KERNEL) is None
    assert [] == [path for path in (memory / "run").rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\xff", b"a" * 63])
def test_a_mark_that_was_half_kept_is_one_all_the_same(
    scratch: Scratch, tmp_path: Path, content: bytes
) -> None:
    scratch.mark(KERNEL, CONTAINER)
    (tmp_path / "state/started" / KERNEL).write_bytes(content)

    assert "" == scratch.begun(KERNEL)


def test_a_text_is_replaced_whole(scratch: Scratch) -> None:
    scratch.make(KERNEL, TEXTS, USER)

    scratch.put(KERNEL, {"ssh/known_hosts": "main1 ssh-ed25519 AAAA\n"})

    folder = scratch.folder(KERNEL) / "ssh"
    assert "main1 ssh-ed25519 AAAA\n" == (folder / "known_hosts").read_text()
    assert [] == [path.name for path in folder.iterdir() if path.name.endswith(".new")]


def test_a_lease_is_read_back_and_replaced_and_goes_with_the_rest(scratch: Scratch) -> None:
    before = scratch.lease(KERNEL)
    scratch.make(KERNEL, TEXTS, USER)
    for until_s in (12.5, 300.25):
        scratch.write_lease(KERNEL, until_s)
    found = scratch.lease(KERNEL)
    mode = stat.S_IMODE(os.stat(scratch.folder(KERNEL) / "lease").st_mode)
    scratch.clear(KERNEL)

    assert (None, 300.25, None) == (before, found, scratch.lease(KERNEL))
    assert 0o444 == mode


def test_commands_are_noted_for_the_next_process(
    scratch: Scratch, memory: Path, tmp_path: Path
) -> None:
    others = CONTAINER.replace("a", "b")
    for exec_id in (CONTAINER, others, others):
        scratch.commands.note(exec_id)
    again = Scratch(memory / "run", tmp_path / "state").commands
    found = again.noted()
    for _ in range(2):
        again.forget(others)
    (memory / "run/x/somebodys").touch()

    assert {CONTAINER, others} == found
    assert {CONTAINER} == again.noted()
    assert 0o700 == stat.S_IMODE(os.stat(memory / "run/x").st_mode)


def test_a_command_that_cannot_be_noted_is_told(scratch: Scratch, memory: Path) -> None:
    (memory / "run/x").rmdir()

    with pytest.raises(FileNotFoundError):
        scratch.commands.note(CONTAINER)
    assert frozenset() == scratch.commands.noted()


def test_a_name_that_is_no_command_never_becomes_a_path(scratch: Scratch) -> None:
    with pytest.raises(ValueError, match="is no id"):
        scratch.commands.note("../../etc/x")


def test_a_name_that_is_no_kernel_never_becomes_a_path(scratch: Scratch) -> None:
    with pytest.raises(ValueError, match="is not a kernel id"):
        scratch.folder(KernelId("../../etc"))


def test_dropbears_form_is_type_and_seed_with_public_half() -> None:
    blob = keys.fresh().dropbear()

    assert b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x40" == blob[:19]
    assert 19 + 64 == len(blob)
