"""Full and read-only disks: under the database alone, under a manager and an agent that run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from phalanx_lab.lab import Host
from phalanx_manager.store.database import Database
from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.tables import Writes
from tests.real.failing import ENDED, ON_BOTH, WITNESS, Site, containers, state_of
from tests.real.ground import Answer, assert_same_traces, await_true, call, settled_traces

pytestmark = pytest.mark.real

ROOM = 16 << 20
PATIENT = {"lost_after_s": 300}
PAD = "x" * 100_000
MANY = 100
"""Sessions with so much text in them: more than the room that the database's log may have left."""

UNTIL_ENOUGH = f"{WITNESS}until [ -e /share/room ]; do sleep 0.05; done; exit 7"


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


@contextlib.contextmanager
def manager_away(site: Site) -> Iterator[Path]:
    """Meanwhile no manager runs; its folder."""
    lab, folder = site.ground.lab, site.folder("manager")
    supervisor, pid = lab.pid("supervisor"), lab.pid("manager")
    os.kill(supervisor, signal.SIGSTOP)  # it would start the next one
    try:
        os.kill(pid, signal.SIGKILL)
        await_true("it is dead", lambda: state_of(pid) in ("", "Z"))
        yield folder
    finally:
        os.kill(supervisor, signal.SIGCONT)
    await_true("there is a new one", lambda: lab.pid("manager") not in (0, pid))


@contextlib.contextmanager
def on_a_small_disk(site: Site, aside: Path) -> Iterator[Path]:
    """The manager goes on from a disk that has little room, and afterwards from its own again."""
    with manager_away(site) as folder:
        with contextlib.closing(sqlite3.connect(folder / "phalanx.db")) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what it writes takes new room
        shutil.copytree(folder, aside / "before", dirs_exist_ok=True)
        used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        size = f"size={used + ROOM}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "small", str(folder)], check=True)
        shutil.copytree(aside / "before", folder, dirs_exist_ok=True)
    try:
        yield folder
    finally:
        with manager_away(site):
            shutil.copytree(folder, aside / "after", dirs_exist_ok=True)
            # A killed process is a zombie while its threads still end.
            unmounted = partial(call, "umount", str(folder))
            await_true("nobody uses the small disk", lambda: unmounted().code == 0)
            for file in ("phalanx.db-wal", "phalanx.db-shm"):
                (folder / file).unlink(missing_ok=True)
            shutil.copytree(aside / "after", folder, dirs_exist_ok=True)


@pytest.fixture
def site(failing: Site) -> Iterator[Site]:
    """The lab; after the test nothing may be left of what was done."""
    before = settled_traces(failing.ground)
    try:
        yield failing
    finally:
        failing.clear()
    assert_same_traces(before, failing.ground)


def until_refused(site: Site) -> tuple[list[str], Answer]:
    """Ask for sessions until one is refused; those that were not, and the answer."""
    wish = {"image": "phalanx/base", "kind": "batch", "command": ["true"], "env": {"PAD": PAD}}
    spec = {**wish, **PATIENT}
    accepted: list[str] = []
    for _ in range(MANY):
        answer = site.ground.http("POST", "/v1/sessions", spec)
        if answer.status != 201:
            return accepted, answer
        accepted.append(answer.json()["id"])
    raise AssertionError("the disk has more room than it should")


@pytest.mark.timeout(300)
def test_a_manager_whose_disk_fills_up_refuses_what_is_new_and_loses_nothing(
    site: Site, tmp_path: Path
) -> None:
    share = {"source": str(site.share), "target": "/share", "read_only": False}
    wish = {**ON_BOTH, "command": ["sh", "-c", UNTIL_ENOUGH], "mounts": [share], **PATIENT}
    enough = site.share / "room"
    with on_a_small_disk(site, tmp_path) as folder:
        session = site.submit(**wish)
        site.await_state(session, "running")
        with (folder / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 12))
        accepted, answer = until_refused(site)
        enough.touch()
        await_true("its commands have ended", lambda: not running(site, session))
        (folder / "filling").unlink()
        view = site.await_state(session, *ENDED)
        kept = [site.await_state(one, *ENDED)["state"] for one in accepted]
        again = site.await_state(site.submit(command=["true"], **PATIENT), *ENDED)
    enough.unlink()
    after = site.view(session)

    assert 503 == answer.status
    assert "make room on the disk; running containers are not touched" in answer.body.decode()
    assert ("failed", 7) == (view["state"], view["exit_code"])
    assert 2 == site.times_run(session)
    assert {"succeeded"} == {again["state"], *kept}
    assert view["ended_at"] == after["ended_at"]


def running(site: Site, session: str) -> list[str]:
    """The containers of a session that run."""
    shown = ("inspect", "--format", "{{.State.Running}}")
    return [
        container
        for host, container in containers(site.ground, session)
        if "true" in site.ground.docker(host, *shown, container).out
    ]


@contextlib.contextmanager
def no_room_for_markers(site: Site, host: Host) -> Iterator[tuple[str, ...]]:
    """The folder in which an agent notes begun starts is full; the command that makes room."""
    folder = f"{host.state_dir}/agent/started"
    inside = ("nsenter", f"--mount=/proc/{site.ground.lab.pid(f'agent-{host.index}')}/ns/mnt")
    call(*inside, "mount", "-t", "tmpfs", "-o", "nr_inodes=1", "small", folder).ok()
    try:
        yield (*inside, "mount", "-o", "remount,nr_inodes=100", folder)
    finally:
        call(*inside, "umount", folder).ok()


def test_an_agent_whose_disk_is_full_starts_nothing_until_there_is_room(site: Site) -> None:
    share = {"source": str(site.share), "target": "/share", "read_only": False}
    with no_room_for_markers(site, site.ground.lab.hosts[1]) as make_room:
        wish = {"command": ["sh", "-c", WITNESS], "mounts": [share]}
        session = site.submit(**ON_BOTH, **wish, **PATIENT)
        await_true(
            "it says what it waits for",
            lambda: "No space left" in json.dumps(site.view(session)["kernels"]),
        )
        before = site.times_run(session)
        call(*make_room).ok()
        view = site.await_state(session, *ENDED)
        site.ask("GET", f"/v1/sessions/{session}/wait?until=removed").ok()

    assert (0, 2) == (before, site.times_run(session))
    assert "succeeded" == view["state"]
