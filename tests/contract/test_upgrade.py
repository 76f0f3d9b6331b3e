"""What older programs have written is known to this one, whichever version they left."""

from __future__ import annotations

import functools
import sqlite3
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from phalanx_manager.core.model import Snapshot
from phalanx_manager.store.lease import SCHEMA
from phalanx_manager.store.ledger import Ledger
from phalanx_manager.store.port import SessionFilter
from phalanx_manager.store.statements import Dialect, migrations
from phalanx_wire.api import EventView
from phalanx_wire.lifecycle import KernelState
from tests.support.house import later, observed
from tests.support.postgres import Server
from tests.support.store_case import ONE, TWO, A, Case, in_postgres, in_sqlite

Found = tuple[Snapshot, list[str], list[EventView]]
Filled = list[tuple[str, list[str], list[tuple[object, ...]]]]
"""Tables in the order in which they refer to each other, with their columns and rows."""


async def write(path: Path) -> Found:
    """Do what every version could: one session runs, one has ended, its key is spent."""
    case = Case(functools.partial(in_sqlite, str(path)))
    await case.begin()
    await case.join()
    await case.store.saw(A, observed("a"), later(1))
    await case.submit(key="k", size=2)
    await case.place()
    await case.move(0, KernelState.PREPARING)
    await case.submit(TWO, key="k2")
    found = await read(await case.again())
    await case.end()
    return found


async def read(store: Ledger) -> Found:
    sessions = await store.sessions(SessionFilter(None, None, ended_too=True, limit=10))
    events = list(await store.events(0, None, 100))
    return await store.load(), [row.session.id for row in sessions], events


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def schema(version: int) -> sqlite3.Connection:
    """An empty database as that version left it."""
    connection = sqlite3.connect(":memory:")
    for number in range(1, version + 1):
        connection.executescript(migrations()[number])
    return connection


def rows_for(version: int, path: Path) -> Filled:
    """Take from a database of today what one of that version could hold."""
    filled: Filled = []
    with closing(schema(version)) as old, closing(sqlite3.connect(path)) as new:
        tables = [
            row[0] for row in old.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        for table in tables:
            if table not in ("kernel_step", "sqlite_sequence"):
                names = [f'"{name}"' for name in columns(old, table)]
                query = f"SELECT {', '.join(names)} FROM {table}"  # noqa: S608 - of our own schema
                rows = new.execute(query).fetchall()
                filled.append((table, names, rows))
    return filled


def insert(table: str, names: list[str], dialect: Dialect) -> str:
    marks = ["?" if dialect == "sqlite" else f"${n}" for n in range(1, len(names) + 1)]
    ours = " OVERRIDING SYSTEM VALUE" if dialect == "postgres" and table == "event" else ""
    into = f"INSERT INTO {table} ({', '.join(names)}){ours}"
    return f"{into} VALUES ({', '.join(marks)})"


@pytest.mark.parametrize("version", range(1, max(migrations())))
async def test_a_file_of_every_version_is_read_as_it_was_written(
    tmp_path: Path, version: int
) -> None:
    written = await write(tmp_path / "today.db")
    with closing(schema(version)) as made:
        for table, names, rows in rows_for(version, tmp_path / "today.db"):
            made.execute(f"DELETE FROM {table}")  # noqa: S608 - as above
            made.executemany(insert(table, names, "sqlite"), rows)
        made.commit()
        made.execute(f"PRAGMA user_version = {version}")
        with closing(sqlite3.connect(tmp_path / "old.db")) as file:
            made.backup(file)
    await goes_on(Case(functools.partial(in_sqlite, str(tmp_path / "old.db"))), written)


@pytest.mark.parametrize("version", range(1, max(migrations())))
async def test_a_server_of_every_version_is_read_as_it_was_written(
    server: Server, tmp_path: Path, version: int
) -> None:
    written = await write(tmp_path / "today.db")
    url = await server.fresh()
    connection = await asyncpg.connect(url)
    await connection.execute(SCHEMA)
    for number in range(1, version + 1):
        await connection.execute(migrations("postgres")[number])
    for table, names, rows in rows_for(version, tmp_path / "today.db"):
        await connection.execute(f"DELETE FROM {table}")  # noqa: S608 - as above
        await connection.executemany(insert(table, names, "postgres"), rows)
    await connection.execute(
        "SELECT setval(pg_get_serial_sequence('event', 'id'), (SELECT max(id) FROM event))"
    )
    await connection.execute("UPDATE leader SET version = $1", version)
    await connection.close()
    await goes_on(Case(functools.partial(in_postgres, url)), written)


async def goes_on(case: Case, written: Found) -> None:
    """All is there, and a kernel takes its next step."""
    await case.begin()
    found = await read(case.store)
    moved = await case.move(0, KernelState.CREATED)
    await case.end()

    assert written == found
    assert moved
    assert {ONE, TWO} == set(found[0].sessions)
