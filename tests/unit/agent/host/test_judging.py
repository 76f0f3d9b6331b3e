from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from phalanx_agent.config import AllowedMount
from phalanx_agent.core.recipe import Account, Bind
from phalanx_agent.core.refused import Refused
from phalanx_agent.host import allow, guard, inventory, users
from phalanx_agent.host.logstore import LogStore
from phalanx_agent.host.uploads import Uploads
from phalanx_wire.api import LogLine
from phalanx_wire.ids import KernelId
from phalanx_wire.spec import Mount
from tests.support.hunger import no_more_files

KERNEL = KernelId("abcdefghijkl-1-0")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001::/home/ada:/bin/sh\nbroken\n"
GROUP = "root:x:0:\nstaff:x:50:ada\n"


# ---------------------------------------------------------------- mounts


def test_what_is_allowed_is_bound_at_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    bound = allow.judge([Mount(f"{tmp_path}/data", "/data")], [AllowedMount(str(tmp_path))], [])

    assert (Bind(f"{tmp_path}/data", "/data", read_only=True),) == bound


@pytest.mark.parametrize(
    "source",
    ["/etc", "/", "/proc/1", "relative", "{root}/../x", "{root}/link", "{root}/missing",
     "{root}/own/keys", "{root}/pipe"],
)  # fmt: skip
def test_what_is_not_allowed_or_not_there_is_refused(tmp_path: Path, source: str) -> None:
    root = tmp_path / "root"
    (root / "own" / "keys").mkdir(parents=True)
    (root / "link").symlink_to("/etc")
    os.mkfifo(root / "pipe")
    mount = Mount(source.format(root=root), "/data")

    with pytest.raises(Refused):
        allow.judge([mount], [AllowedMount(str(root))], [root / "own"])


def test_a_folder_is_not_judged_by_an_agent_without_descriptors(tmp_path: Path) -> None:
    mount = Mount(str(tmp_path), "/data", read_only=False)

    with no_more_files(), pytest.raises(OSError, match="Too many open files"):
        allow.judge([mount], [AllowedMount(str(tmp_path), write=True)], [])


def test_a_folder_that_holds_the_agents_own_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()

    with pytest.raises(Refused):
        allow.judge([Mount(str(tmp_path), "/x")], [AllowedMount("/")], [tmp_path / "own"])


@pytest.mark.parametrize("source", ["{root}", "{root}/engine", "{root}/engine/overlay2"])
def test_what_is_the_engines_is_refused_wherever_links_lead_to_it(
    tmp_path: Path, source: str
) -> None:
    root = tmp_path / "disk"
    (root / "engine" / "overlay2").mkdir(parents=True)
    (tmp_path / "docker").symlink_to(root / "engine")
    mount = Mount(source.format(root=root), "/x")

    with pytest.raises(Refused):
        allow.judge([mount], [AllowedMount(str(root))], ["", str(tmp_path / "docker")])


def test_writing_has_to_be_allowed_by_name(tmp_path: Path) -> None:
    mount = Mount(str(tmp_path), "/data", read_only=False)
    with pytest.raises(Refused, match="for writing"):
        allow.judge([mount], [AllowedMount(str(tmp_path))], [])

    (bound,) = allow.judge([mount], [AllowedMount(str(tmp_path), write=True)], [])

    assert (str(tmp_path), "/data", False) == (bound.source, bound.target, bound.read_only)


# ---------------------------------------------------------------- users


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Account(0, 0, "root", "/root")),
        ("ada", Account(1000, 1001, "ada", "/home/ada")),
        ("1000", Account(1000, 1001, "ada", "/home/ada")),
        ("ada:staff", Account(1000, 50, "ada", "/home/ada")),
        ("12345", Account(12345, 0)),
        ("12345:54321", Account(12345, 54321)),
    ],
)
def test_a_user_is_who_the_image_says(user: str, expected: Account) -> None:
    assert expected == users.account(user, PASSWD, GROUP)


@pytest.mark.parametrize("user", ["nobody", "nobody:docker", "ada:docker", "-1", "99999999999"])
def test_a_user_that_the_image_does_not_have_is_refused(user: str) -> None:
    with pytest.raises(Refused):
        users.account(user, PASSWD, GROUP)


@pytest.mark.parametrize("number", ["\N{SUPERSCRIPT TWO}", "99999999999", "9" * 5000, "-1", ""])
def test_an_image_whose_numbers_are_none_is_refused(number: str) -> None:
    with pytest.raises(Refused):
        users.account("ada", f"ada:x:{number}:0::/:/bin/sh\n", "")
    with pytest.raises(Refused):
        users.account("1:staff", "", f"staff:x:{number}:\n")


def test_a_number_is_never_taken_for_the_name_that_an_image_gives_to_root() -> None:
    assert Account(1000, 0) == users.account("1000", "1000:x:0:0::/root:/bin/sh\n", "")
    assert Account(7, 50) == users.account("7:50", "", "50:x:0:\n")


# ---------------------------------------------------------------- logs


async def _three_lines(_container: str, *, session: str) -> AsyncIterator[Iterator[LogLine]]:
    assert KERNEL.startswith(session)
    for number in range(3):
        yield iter([LogLine(at_ns=number + 1, stderr=number == 1, text=f"line {number}")])


def _read(store: LogStore, *, since_ns: int = 0, tail: int = -1) -> list[str]:
    pieces = store.lines(KERNEL, since_ns=since_ns, tail=tail)
    return [line.text for piece in pieces for line in piece]


async def test_a_copy_of_the_log_gives_what_the_engine_gave(tmp_path: Path) -> None:
    store = LogStore(tmp_path, _three_lines)
    assert not store.has(KERNEL)

    await store.keep(KERNEL, "container")

    assert store.has(KERNEL)
    assert ["line 0", "line 1", "line 2"] == _read(store)
    assert ["line 2"] == _read(store, tail=1)
    assert ["line 1", "line 2"] == _read(store, since_ns=1)
    assert ["line 2"] == _read(store, since_ns=1, tail=1)
    assert [] == _read(store, tail=0)


async def test_old_copies_are_forgotten_and_new_ones_kept(tmp_path: Path) -> None:
    store = LogStore(tmp_path, _three_lines)
    await store.keep(KERNEL, "container")
    changed_at = (tmp_path / f"{KERNEL}.log").stat().st_mtime

    assert 0 == store.forget_old(changed_at + 60)
    assert 1 == store.forget_old(changed_at + 8 * 86_400)
    assert not store.has(KERNEL)


# ---------------------------------------------------------------- uploads


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("train.py")
        member.size, member.mode, member.uid = 5, 0o644, 4242
        tar.addfile(member, io.BytesIO(b"print"))
    return buffer.getvalue()


SECRET = b"k" * 32


async def test_an_upload_is_unpacked_below_its_folder_and_belongs_to_the_user(
    tmp_path: Path,
) -> None:
    archive = _archive()
    digest = f"sha256:{hashlib.sha256(archive).hexdigest()}"

    async def fetch(_digest: str) -> AsyncIterator[bytes]:
        yield archive[:100]
        yield archive[100:]

    uploads = Uploads(tmp_path, fetch, SECRET)
    await uploads.fetch(digest)
    whole = b"".join([chunk async for chunk in uploads.chunks(digest, Account(1000, 1001))])

    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        found = [(member.name, member.uid, member.gid) for member in tar]
    assert [("workspace", 1000, 1001), ("workspace/train.py", 1000, 1001)] == found


async def test_an_upload_that_arrives_changed_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async def fetch(_digest: str) -> AsyncIterator[bytes]:
        yield b"something else"

    uploads = Uploads(tmp_path, fetch, SECRET)
    with pytest.raises(Refused):
        await uploads.fetch(f"sha256:{'0' * 64}")

    assert [] == list(tmp_path.iterdir())


async def test_a_reader_that_goes_away_leaves_nobody_waiting(tmp_path: Path) -> None:
    archive = _archive()
    digest = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    (tmp_path / f"{digest.removeprefix('sha256:')}.tar").write_bytes(archive)
    uploads = Uploads(tmp_path, lambda _digest: _three_lines("", session=""), SECRET)  # type: ignore[arg-type, return-value]

    chunks = uploads.chunks(digest, Account(0, 0))
    await anext(chunks)
    async with asyncio.timeout(5):
        await chunks.aclose()  # type: ignore[attr-defined]


# ---------------------------------------------------------------- machine


def test_the_guard_names_every_address_and_only_our_interfaces() -> None:
    text = guard.rules(["10.99.0.1", "10.99.0.254", ""])

    assert "-A PHALANX-FORWARD -d 10.99.0.1/32 -j DROP" in text
    assert "-A PHALANX-FORWARD -p udp --dport 4789 -j DROP" in text
    assert text.endswith("COMMIT\n")
    assert "DOCKER" not in text


def test_gpus_are_read_from_the_drivers_listing(tmp_path: Path) -> None:
    entry = tmp_path / "0000:01:00.0"
    entry.mkdir()
    (entry / "information").write_text(
        "Model: \t\t NVIDIA H200\nIRQ:   100\nGPU UUID: \t GPU-1234\nVideo BIOS: ??\n"
    )

    (found,) = inventory.gpus(tmp_path)

    assert ("GPU-1234", "h200") == (found.id, found.model)


def test_a_machine_knows_itself() -> None:
    assert inventory.cpu_milli() >= 1000
    assert inventory.mem_bytes() > 1 << 28
    assert 36 == len(inventory.boot_id())
    assert inventory.largest_nofile() >= 1024
    assert not any(address.startswith("127.") for address in inventory.addresses())
