"""What is answered is on the disk, and what died on its way there has never been."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from contextlib import closing
from pathlib import Path

from phalanx_manager.core.model import SessionRow
from phalanx_manager.store.database import Database
from phalanx_manager.store.port import Created, NewSession
from phalanx_manager.store.postgres import Postgres
from phalanx_manager.store.sqlite import SqliteStore
from phalanx_wire.lifecycle import KernelState
from tests.support.house import NOW, admitted
from tests.support.postgres import USER, Server
from tests.support.store_case import ADA, ONE, ROOT, in_postgres

STEP_BYTES = 3001
"""From one cut to the next: each page (4096 bytes and a head of 24) is cut at another place."""

FULL = 2


def test_the_connection_that_writes_a_file_waits_for_the_disk(tmp_path: Path) -> None:
    database = Database.open(str(tmp_path / "phalanx.db"))
    asked = database._connection.execute
    told = [asked(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
    database.close()

    assert [FULL, "wal"] == told


async def test_a_server_waits_for_the_disk_for_us_even_where_it_would_not(server: Server) -> None:
    url = await server.with_schema()
    await server.admin(f"ALTER ROLE {USER} SET synchronous_commit = off")
    try:
        async with in_postgres(url, lambda _: None) as store:
            tables = store._tables
            assert isinstance(tables, Postgres)
            assert tables._writer is not None
            assert "on" == await tables._writer.fetchval("SHOW synchronous_commit")
    finally:
        await server.admin(f"ALTER ROLE {USER} RESET synchronous_commit")


def submits(path: Path, room: int) -> bool:
    """Let a process submit a session and die: in the middle of its commit, at the byte at which
    its files have grown by `room`, or right after the answer. Whether it was answered.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store = SqliteStore.open(str(path), NOW, "cid")
            size = path.with_name(f"{path.name}-wal").stat().st_size + room
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            wanted = NewSession(ONE, ADA, admitted(size=3), NOW, "key", "digest")
            assert Created(ONE) == asyncio.run(store.submit(wanted))
            os.write(write, b"answered")
        finally:
            os._exit(9)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        answered = told.read() == b"answered"
    _, status = os.waitpid(child, 0)
    assert answered or signal.SIGXFSZ == os.WTERMSIG(status)
    return answered


def found(path: Path) -> list[str]:
    """All that a database holds, but for how often it was opened."""
    database = Database.open(str(path))
    lines = [line for line in database._connection.iterdump() if "'epoch'" not in line]
    database.close()
    return lines


def test_a_process_that_dies_in_a_commit_leaves_no_half_of_it_and_after_its_answer_all(
    tmp_path: Path,
) -> None:
    path = tmp_path / "phalanx.db"
    SqliteStore.open(str(path), NOW, "cid").close()
    before, cuts = found(path), 0
    while not submits(path, 1 + cuts * STEP_BYTES):
        assert before == found(path)
        cuts += 1
        assert cuts < 500

    with closing(SqliteStore.open(str(path), NOW, "cid")) as store:
        row = asyncio.run(store.session(ONE, ROOT))
        events = asyncio.run(store.events(0, ONE, 10))
    assert cuts > 10
    assert isinstance(row, SessionRow)
    assert [KernelState.PENDING] * 3 == [kernel.state for kernel in row.kernels]
    assert ["session.submitted"] == [event.kind for event in events]
