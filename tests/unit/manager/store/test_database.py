"""The file: ours alone, of the right version, with the same table as the code."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phalanx_manager.store.database import MEMORY, Database
from phalanx_manager.store.ledger import _PRUNED
from phalanx_manager.store.port import Unavailable
from phalanx_manager.store.sqlite import SqliteStore
from phalanx_manager.store.statements import migrations, queries
from phalanx_wire.lifecycle import TRANSITIONS


def test_the_schemas_table_of_steps_is_the_codes() -> None:
    database = Database.open(MEMORY)
    rows = database._connection.execute("SELECT from_state, to_state, owner FROM kernel_step")
    found = {(before, after): owner for before, after, owner in rows.fetchall()}
    database.close()

    assert {(int(a), int(b)): owner.value for (a, b), owner in TRANSITIONS.items()} == found


def test_a_second_manager_is_refused_and_let_in_when_the_first_has_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "phalanx.db")
    first = Database.open(path)
    with pytest.raises(Unavailable, match="in use by another manager"):
        Database.open(path)
    first.close()

    Database.open(path).close()


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
def test_a_file_that_was_taken_away_is_not_gone_on_with_until_it_is_back(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "phalanx.db"
    database = Database.open(str(path))
    taken = Path(f"{path}{suffix}").rename(tmp_path / "elsewhere")
    for _time in range(2):
        with (
            pytest.raises(Unavailable, match="was moved, removed or replaced"),
            database.transaction(),
        ):
            database.run("meta_set", {"key": "a", "value": "lost"})
        with pytest.raises(Unavailable, match="was moved, removed or replaced"):
            database.rows("meta_get", {"key": "a"})
        Path(f"{path}{suffix}").touch()
    taken.rename(f"{path}{suffix}")
    with database.transaction():
        database.run("meta_set", {"key": "a", "value": "b"})
    database.close()

    database = Database.open(str(path))
    assert [("b",)] == database.rows("meta_get", {"key": "a"})
    database.close()


def opened(path: Path, hour: int = 0) -> SqliteStore:
    return SqliteStore.open(str(path), datetime(2026, 1, 2, hour, tzinfo=UTC), "c")


def emptied(path: Path) -> None:
    """Move what is in the log to the database, as somebody's SQLite may do at any time."""
    with closing(sqlite3.connect(path)) as somebodys:
        somebodys.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def put(database: Database, key: str) -> None:
    with database.transaction():
        database.run("meta_set", {"key": key, "value": "x" * 5000})


async def test_a_database_that_another_was_copied_over_is_not_gone_on_with(tmp_path: Path) -> None:
    """Answers would be lost with it: what is committed goes to a file that is another's."""
    other, path = tmp_path / "other.db", tmp_path / "phalanx.db"
    opened(other, 1).close()
    store = opened(path)
    emptied(path)

    shutil.copyfile(other, path)

    for _time in range(2):
        with pytest.raises(Unavailable, match="another program has written to it while in use"):
            await store.last_event()
    store.close()


def test_a_database_that_is_half_anothers_is_not_gone_on_with(tmp_path: Path) -> None:
    other, path = tmp_path / "other.db", tmp_path / "phalanx.db"
    Database.open(str(other)).close()
    database = Database.open(str(path))
    for key in "abcdefgh":
        put(database, key)
    emptied(path)
    put(database, "in the log alone")

    shutil.copyfile(other, path)

    with pytest.raises(Unavailable, match="another program has written to it while in use"):
        put(database, "lost")
    database.close()


async def test_what_somebodys_sqlite_moves_from_the_log_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "phalanx.db"
    store = opened(path)
    before = path.stat().st_mtime_ns
    emptied(path)
    assert path.stat().st_mtime_ns > before

    assert 0 == await store.last_event()
    store.close()


def test_a_database_that_was_taken_from_its_log_is_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "phalanx.db"
    Path(f"{path}-wal").write_bytes(b"what was committed last")

    with pytest.raises(Unavailable, match="is not there, but its log"):
        Database.open(str(path))
    assert [f"{path.name}-wal"] == os.listdir(tmp_path)


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "phalanx.db"
    Database.open(str(path)).close()

    assert 0o600 == path.stat().st_mode & 0o777


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "phalanx.db")
    Database.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(Unavailable, match="schema version 99"):
        Database.open(path)


def test_a_file_that_is_no_database_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "phalanx.db"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)

    with pytest.raises(Unavailable, match="file is not a database"):
        Database.open(str(path))


def test_a_folder_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file or directory"):
        Database.open(str(tmp_path / "missing" / "phalanx.db"))


def test_a_broken_transaction_leaves_nothing(tmp_path: Path) -> None:
    database = Database.open(str(tmp_path / "phalanx.db"))

    def half() -> None:
        with database.transaction():
            database.run("meta_set", {"key": "a", "value": "b"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    found = database.rows("meta_get", {"key": "a"})
    database.close()

    assert [] == found


def test_a_commit_is_durable_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "phalanx.db")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # the child dies as by kill -9, right after its commit
        database = Database.open(path)
        with database.transaction():
            database.run("meta_set", {"key": "a", "value": "b"})
        os.write(write, b"x")
        os._exit(9)
    os.read(read, 1)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    database = Database.open(path)
    found = database.rows("meta_get", {"key": "a"})
    database.close()

    assert [("b",)] == found


STORE = Path(__file__).parents[4] / "manager/phalanx_manager/store"


def test_every_statement_is_named_once_and_used_and_migrations_count_from_one() -> None:
    text = (STORE / "queries.sql").read_text()
    code = "".join(path.read_text() for path in STORE.glob("*.py"))

    assert text.count("-- name: ") == len(queries())
    assert [] == [name for name in queries() if f'"{name}"' not in code]
    assert list(range(1, len(migrations()) + 1)) == sorted(migrations())
    assert set(migrations()) == set(migrations("postgres"))


def test_what_refers_to_a_session_or_its_kernels_is_forgotten_with_it() -> None:
    database = Database.open(MEMORY)
    tables = database._connection.execute(
        "SELECT DISTINCT m.name FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f "
        "WHERE f.\"table\" IN ('session', 'kernel')"
    ).fetchall()
    database.close()
    pruned = {
        text.split()[2]
        for name, text in queries().items()
        if name in _PRUNED and text.startswith("DELETE FROM")
    }

    assert {name for (name,) in tables} <= pruned


def test_a_column_that_postgresql_would_take_for_something_else_is_quoted() -> None:
    texts = [*queries().values(), *migrations().values()]
    texts += [path.read_text() for path in STORE.glob("lookup.py")]
    bare = [re.findall(r"(?<![:.\w\"'])user(?= (?:=|TEXT)|,|\))", text) for text in texts]

    assert [] == [found for found in bare if found]


def test_sessions_from_before_numbers_get_them_in_the_order_in_which_they_came() -> None:
    connection = sqlite3.connect(":memory:")
    for number, step in sorted(migrations().items()):
        if number < 8:
            connection.executescript(step)
    for name, at in (("b", 5), ("c", 3), ("a", 5)):
        values = (name, name, "ada", "default", "{}", "pending", 1, at)
        connection.execute(
            'INSERT INTO session (id, name, "user", cluster, spec, state, attempt, created_at)'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
    connection.executescript(migrations()[8])
    found = connection.execute("SELECT id, number FROM session ORDER BY number").fetchall()
    last = connection.execute(queries()["number_last"]).fetchall()
    connection.close()

    assert [("c", 1), ("a", 2), ("b", 3)] == found
    assert [(3,)] == last


def test_clusters_and_their_events_from_before_rows_of_their_own_are_known() -> None:
    connection = sqlite3.connect(":memory:")
    for number, step in sorted(migrations().items()):
        if number < 9:
            connection.executescript(step)
    connection.execute("INSERT INTO agent (name, cluster, public_key, joined_at) VALUES (?,?,?,?)",
        ("a", "old--pool", "k", 1))  # fmt: skip
    connection.execute(
        'INSERT INTO session (id, name, "user", cluster, spec, state, attempt, created_at)'
        " VALUES ('s', 's', 'ada', 'gone', '{}', 'succeeded', 1, 1)"
    )
    connection.execute("INSERT INTO event (at, session, kind, text) VALUES (1, 's', 'k', 't')")
    connection.executescript(migrations()[9])
    found = connection.execute("SELECT name FROM cluster ORDER BY name").fetchall()
    told = connection.execute("SELECT cluster FROM event").fetchall()
    connection.close()

    assert [("default",), ("gone",), ("old--pool",)] == found
    assert [("gone",)] == told
