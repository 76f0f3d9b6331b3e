"""Changes that wait at the same time share a commit, and none harms another."""

from __future__ import annotations

import asyncio
from pathlib import Path

from phalanx_manager.store.database import Database
from phalanx_manager.store.tables import Clash, Writes


def change(name: str, value: str, exactly: int | None = None) -> Writes:
    writes = Writes()
    writes.run("meta_set", {"key": name, "value": value}, exactly=exactly)
    return writes


async def test_what_waits_together_is_one_transaction(tmp_path: Path) -> None:
    database = Database.open(str(tmp_path / "phalanx.db"))
    statements: list[str] = []
    database._connection.set_trace_callback(statements.append)
    async with asyncio.TaskGroup() as tasks:
        for number in range(100):
            tasks.create_task(_committed(database, change(f"k{number}", "v")))
    database.close()

    assert 1 == statements.count("COMMIT")
    assert 100 == sum(statement.startswith("INSERT") for statement in statements)


async def test_one_that_is_refused_leaves_the_others(tmp_path: Path) -> None:
    database = Database.open(str(tmp_path / "phalanx.db"))
    told: list[tuple[str, bool]] = []
    done = [
        database.commit(change("a", "1"), lambda well: told.append(("a", well))),
        database.commit(change("b", "2", exactly=7), lambda well: told.append(("b", well))),
        database.commit(change("c", "3"), lambda well: told.append(("c", well))),
    ]
    outcomes = await asyncio.gather(*done, return_exceptions=True)
    kept = [await database.read("meta_get", {"key": key}) for key in "abc"]
    database.close()

    assert [None, Clash, None] == [outcome and type(outcome) for outcome in outcomes]
    assert [("a", True), ("b", False), ("c", True)] == told
    assert [[("1",)], [], [("3",)]] == kept


async def test_who_has_gone_does_not_take_a_change_along(tmp_path: Path) -> None:
    database = Database.open(str(tmp_path / "phalanx.db"))
    waiting = asyncio.ensure_future(_committed(database, change("a", "1")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    await database.commit(change("b", "2"), lambda _: None)
    kept = await database.read("meta_get", {"key": "a"})
    database.close()

    assert [("1",)] == kept


async def _committed(database: Database, writes: Writes) -> None:
    await asyncio.shield(database.commit(writes, lambda _: None))
