"""Files that are not opened: each is told in one sentence, and left as it was."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from phalanx_manager.store.database import Database
from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.statements import migrations
from phalanx_manager.store.tables import Writes

PAGE = 4096


def filled(path: Path) -> None:
    """A sound database with more than one page of data."""
    database = Database.open(str(path))
    with database.transaction():
        for number in range(300):
            database.run("meta_set", {"key": f"key-{number:04}", "value": "v" * 200})
    database.close()


def newer(path: Path) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {max(migrations()) + 1}")


def newer_and_killed(path: Path) -> None:
    """Its last words are still in the log beside it."""
    newer(path)
    program = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute(\"INSERT INTO meta VALUES ('late', 'word')\"); c.commit(); os._exit(9)"
    )
    subprocess.run(["python3", "-c", program, str(path)], check=False)
    assert path.with_name(path.name + "-wal").stat().st_size > 0


def torn(path: Path) -> None:
    filled(path)
    with path.open("r+b") as file:
        file.seek(PAGE * 20 + 5)
        file.write(b"\xff" * (PAGE * 8))


def truncated(path: Path) -> None:
    filled(path)
    with path.open("r+b") as file:
        file.truncate(PAGE * 3 + 17)


def nonsense(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)


def somebody_elses(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipe (name TEXT)")


def kept(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What lies in a folder, and since when. Whoever looks at a database makes the index of its
    log (-shm) anew, and an empty log where there is none; and our lock stays.
    """
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.iterdir()
        if path.stat().st_size and not path.name.endswith("-shm")
    }


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (newer, "is of schema version .*; run the program that wrote it, or a newer one"),
        (newer_and_killed, "is of schema version"),
        (torn, "restore it from a backup: phalanx manager restore FILE"),
        (truncated, "restore it from a backup: phalanx manager restore FILE"),
        (nonsense, "file is not a database; restore it from a backup"),
        (somebody_elses, "is a database, but not of Phalanx; set data_dir to another folder"),
    ],
)
def test_a_file_that_is_refused_is_left_as_it_was(
    tmp_path: Path, make: Callable[[Path], None], told: str
) -> None:
    path = tmp_path / "phalanx.db"
    make(path)
    before = kept(tmp_path)

    with pytest.raises(Unavailable, match=told) as caught:
        Database.open(str(path))

    assert "\n" not in str(caught.value)
    assert before == kept(tmp_path)


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    path = tmp_path / "phalanx.db"
    path.mkdir()

    with pytest.raises(Unavailable, match="cannot be opened: Is a directory; check the folder"):
        Database.open(str(path))


async def test_without_room_what_is_new_is_refused_and_what_was_said_is_kept(
    tmp_path: Path,
) -> None:
    database = Database.open(str(tmp_path / "phalanx.db"))
    settled: list[bool] = []

    async def put(key: str, value: str) -> None:
        writes = Writes()
        writes.run("meta_set", {"key": key, "value": value})
        await database.commit(writes, settled.append)

    await put("small", "kept")
    database._connection.execute("PRAGMA max_page_count = 60")
    with pytest.raises(Unavailable, match=r"cannot be written: .*make room on the disk; running"):
        await put("big", "x" * (1 << 20))
    await put("again", "fits")
    found = [await database.read("meta_get", {"key": key}) for key in ("small", "big", "again")]
    database.close()

    assert [[("kept",)], [], [("fits",)]] == found
    assert [True, False, True] == settled
