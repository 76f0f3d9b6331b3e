"""Copies of a database that is in use, and their way back."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx_manager.store.backup import backup, restore
from phalanx_manager.store.database import Database
from phalanx_manager.store.port import Unavailable


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


def test_a_server_is_backed_up_by_its_own_tools(tmp_path: Path) -> None:
    config = tmp_path / "manager.toml"
    config.write_text('database = "postgresql://phalanx@db/phalanx"\n')

    told = "the database: is a PostgreSQL; use pg_dump\n"
    assert (1, told) == run("backup", str(tmp_path / "copy"), "--config", str(config))
