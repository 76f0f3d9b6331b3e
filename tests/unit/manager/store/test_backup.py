"""Copies of a database that is in use, and their way back."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from phalanx_manager.core.model import Session
from phalanx_manager.store.backup import backup, restore
from phalanx_manager.store.database import Database
from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.sqlite import SqliteStore
from phalanx_wire.lifecycle import KernelState as S
from tests.support.house import NOW, later
from tests.support.store_case import Case, in_sqlite

UP = (S.PREPARING, S.CREATED, S.STARTING, S.READY, S.MESHED, S.RUNNING)


def put(database: Database, key: str, value: str) -> None:
    with database.transaction():
        database.run("meta_set", {"key": key, "value": value})


def made(path: Path, value: str) -> None:
    database = Database.open(str(path))
    put(database, "said", value)
    database.close()


def said(path: Path) -> str:
    database = Database.open(str(path))
    ((value,),) = database.rows("meta_get", {"key": "said"})
    database.close()
    return str(value)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_database_in_use_is_copied_as_it_is_at_that_moment(tmp_path: Path) -> None:
    live, copy = tmp_path / "phalanx.db", tmp_path / "copy.db"
    database = Database.open(str(live))
    put(database, "said", "before")
    backup(live, copy, force=False)
    put(database, "said", "after")
    database.close()

    assert "before" == said(copy)
    assert "after" == said(live)
    assert 0o600 == copy.stat().st_mode & 0o777


def test_a_database_is_not_replaced_by_its_own_copy(tmp_path: Path) -> None:
    live = tmp_path / "phalanx.db"
    database = Database.open(str(live))
    with pytest.raises(Unavailable, match="is the database itself"):
        backup(live, tmp_path / "." / live.name, force=True)
    put(database, "said", "after")
    database.close()

    assert "after" == said(live)


def test_a_copy_is_not_replaced_unless_told(tmp_path: Path) -> None:
    made(tmp_path / "phalanx.db", "new")
    made(tmp_path / "copy.db", "old")
    with pytest.raises(Unavailable, match="is there already; name another file, or give --force"):
        backup(tmp_path / "phalanx.db", tmp_path / "copy.db", force=False)
    kept = said(tmp_path / "copy.db")
    backup(tmp_path / "phalanx.db", tmp_path / "copy.db", force=True)

    assert ("old", "new") == (kept, said(tmp_path / "copy.db"))


def test_a_copy_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    made(tmp_path / "phalanx.db", "new")
    with pytest.raises(Unavailable, match="cannot be written: No such file or directory"):
        backup(tmp_path / "phalanx.db", tmp_path / "missing" / "copy.db", force=False)
    with pytest.raises(Unavailable, match="is no database file"):
        backup(tmp_path / "nothing.db", tmp_path / "copy.db", force=False)

    assert not (tmp_path / "copy.db").exists()
    assert not (tmp_path / "copy.db.new").exists()


def test_a_copy_takes_the_place_of_a_database_which_is_kept(tmp_path: Path) -> None:
    made(tmp_path / "phalanx.db", "lost")
    made(tmp_path / "copy.db", "wanted")
    with pytest.raises(Unavailable, match="is there already; give --force"):
        restore(tmp_path / "copy.db", tmp_path / "phalanx.db", force=False)
    untouched = said(tmp_path / "phalanx.db")
    kept = restore(tmp_path / "copy.db", tmp_path / "phalanx.db", force=True)

    assert "lost" == untouched
    assert "wanted" == said(tmp_path / "phalanx.db")
    assert kept is not None
    assert "lost" == said(kept)


def test_nothing_is_restored_under_a_running_manager(tmp_path: Path) -> None:
    made(tmp_path / "copy.db", "wanted")
    database = Database.open(str(tmp_path / "phalanx.db"))
    put(database, "said", "live")
    with pytest.raises(Unavailable, match="is in use by another manager; stop that one first"):
        restore(tmp_path / "copy.db", tmp_path / "phalanx.db", force=True)
    database.close()

    assert "live" == said(tmp_path / "phalanx.db")


def test_a_damaged_copy_is_not_put_in_place(tmp_path: Path) -> None:
    made(tmp_path / "phalanx.db", "live")
    (tmp_path / "copy.db").write_bytes(b"nothing like a database" * 500)
    before = digest(tmp_path / "phalanx.db")
    with pytest.raises(Unavailable, match="is not a database"):
        restore(tmp_path / "copy.db", tmp_path / "phalanx.db", force=True)

    assert before == digest(tmp_path / "phalanx.db")


CUT_OFF = """
import os, sys
from pathlib import Path
from phalanx_manager.store.backup import restore

def cut_off(folder, left):
    def count(event, arguments):
        nonlocal left
        left -= event in ("os.rename", "os.remove")
        if left < 0:
            os._exit(9)
    sys.addaudithook(count)
    restore(folder / "copy.db", folder / "phalanx.db", force=True)

for name in sys.argv[1:]:
    if not os.fork():
        cut_off(Path(name), int(Path(name).name))
        os._exit(0)
    os.wait()
"""
"""Restores in each folder, and dies at the rename or removal whose number is the folder's name."""


def killed(folder: Path, value: str) -> None:
    """A database whose manager was killed: its last words are in its log."""
    program = (
        "import os, sys; from pathlib import Path;"
        "from phalanx_manager.store.database import Database;"
        "from tests.unit.manager.store.test_backup import put;"
        "put(Database.open(sys.argv[1]), 'said', sys.argv[2]); os._exit(9)"
    )
    command = [sys.executable, "-c", program, str(folder / "phalanx.db"), value]
    subprocess.run(command, check=False, timeout=60)
    assert (folder / "phalanx.db-wal").stat().st_size > 0


def test_a_restore_that_is_cut_off_loses_nothing_and_can_be_given_again(tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    scene.mkdir()
    killed(scene, "lost")
    made(scene / "copy.db", "wanted")
    made(scene / "phalanx.db.before", "of long ago")
    folders = [tmp_path / str(number) for number in range(12)]
    for folder in folders:
        shutil.copytree(scene, folder)
    subprocess.run([sys.executable, "-c", CUT_OFF, *map(str, folders)], check=True, timeout=60)

    found = [left_by_the_cut(folder) for folder in folders]
    assert sorted(found, key=["lost", "nothing", "wanted"].index) == found
    assert {"lost", "nothing", "wanted"} == set(found)
    for folder in folders:
        assert "wanted" == said(folder / "phalanx.db")
        assert "lost" == said(folder / "phalanx.db.before")


def left_by_the_cut(folder: Path) -> str:
    """Tell what a manager would find, and restore again unless that is done."""
    database = folder / "phalanx.db"
    found = said(database) if database.exists() else "nothing"
    if found == "nothing":
        with pytest.raises(Unavailable, match="a restore was cut off; give it again"):
            Database.open(str(database))
    if found != "wanted":
        restore(folder / "copy.db", database, force=True)
    return found


def test_the_log_of_a_database_that_is_gone_is_not_read_into_its_copy(tmp_path: Path) -> None:
    killed(tmp_path, "lost")
    made(tmp_path / "copy.db", "wanted")
    (tmp_path / "phalanx.db").unlink()
    kept = restore(tmp_path / "copy.db", tmp_path / "phalanx.db", force=False)

    assert None is kept
    assert "wanted" == said(tmp_path / "phalanx.db")


def test_what_root_restores_is_its_managers(tmp_path: Path) -> None:
    made(tmp_path / "copy.db", "wanted")
    folder = tmp_path / "data"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 1234, 1234)
    restore(tmp_path / "copy.db", folder / "phalanx.db", force=False)

    assert {folder.stat().st_uid} == {path.stat().st_uid for path in folder.iterdir()}


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "phalanx_manager", *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_one_command_each_backs_up_and_restores(tmp_path: Path) -> None:
    config, copy = tmp_path / "manager.toml", tmp_path / "copy.db"
    config.write_text(f'data_dir = "{tmp_path}"\n')
    made(tmp_path / "phalanx.db", "first")
    backed_up = run("backup", str(copy), "--config", str(config))
    (tmp_path / "phalanx.db").unlink()
    restored = run("restore", str(copy), "--config", str(config))

    assert (0, f"{copy}: a copy of {tmp_path}/phalanx.db\n") == backed_up
    assert (0, f"{tmp_path}/phalanx.db: as in {copy}\n") == restored
    assert "first" == said(tmp_path / "phalanx.db")


async def test_who_restores_is_told_what_will_be_begun(tmp_path: Path) -> None:
    config, copy = tmp_path / "manager.toml", tmp_path / "copy.db"
    config.write_text(f'data_dir = "{tmp_path}"\n')
    case = Case(functools.partial(in_sqlite, str(copy)))
    await case.begin()
    await case.submit(name="train")
    await case.end()

    code, told = run("restore", str(copy), "--config", str(config))

    assert (0, True) == (code, "1 have not begun in it: train. They are begun" in told)


async def test_a_restored_session_gets_no_place_before_what_may_run_of_it_has_ended(
    tmp_path: Path,
) -> None:
    copy, database = tmp_path / "copy.db", tmp_path / "phalanx.db"
    case = Case(functools.partial(in_sqlite, str(copy)))
    await case.begin()
    await case.submit(name="train", lost_after_s=60.0)
    await case.end()

    restore(copy, database, force=False)
    first = await opened(database, NOW)
    again = await opened(database, later(3600))

    due = later(60 + 15)
    assert (due, due) == (first.not_before, again.not_before)
    assert first.reason.endswith(f"has ended, {due:%H:%M:%S} UTC")
    assert (await opened(copy, NOW)).not_before is None


@pytest.mark.parametrize("runs", [False, True])
async def test_a_restored_session_gives_its_place_up_unless_it_has_begun(
    tmp_path: Path, *, runs: bool
) -> None:
    copy, database = tmp_path / "copy.db", tmp_path / "phalanx.db"
    case = Case(functools.partial(in_sqlite, str(copy)))
    await case.begin()
    await case.join()
    await case.submit(lost_after_s=60.0)
    assert await case.place()
    if runs:
        assert await case.move(0, *UP)
    await case.end()

    restore(copy, database, force=False)
    held = await opened(database, NOW)

    assert (None if runs else ("requeue", "again")) == (
        held.stop and (held.stop.cause, held.stop.then)
    )
    assert later(60 + 15) == held.not_before
    assert held == await opened(database, later(3600))


async def opened(path: Path, now: datetime) -> Session:
    """The one live session of a database that a manager opens now."""
    with closing(SqliteStore.open(str(path), now, "cid")) as store:
        (row,) = (await store.load()).sessions.values()
        return row.session


def test_a_server_is_backed_up_by_its_own_tools(tmp_path: Path) -> None:
    config = tmp_path / "manager.toml"
    config.write_text('database = "postgresql://phalanx@db/phalanx"\n')

    told = "the database: is a PostgreSQL; use pg_dump\n"
    assert (1, told) == run("backup", str(tmp_path / "copy"), "--config", str(config))
