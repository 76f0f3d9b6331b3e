"""The history that every database writes itself: one row for each step, whoever takes it."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from phalanx_manager.store.database import Database
from phalanx_manager.store.postgres import Postgres
from phalanx_manager.store.rows import micros
from phalanx_wire.lifecycle import KernelState
from tests.support.house import later
from tests.support.store_case import Case

S = KernelState
LIFE = (
    S.PENDING, S.ASSIGNED, S.PREPARING, S.CREATED, S.STARTING, S.READY, S.MESHED, S.RUNNING,
    S.EXITED, S.REMOVED,
)  # fmt: skip


async def sql(case: Case, text: str) -> Sequence[Sequence[Any]]:
    """Say something to the database itself, past all of the store's own code."""
    tables = case.store._tables
    if isinstance(tables, Database):
        return tables._connection.execute(text).fetchall()
    assert isinstance(tables, Postgres)
    assert tables._writer is not None
    return [tuple(row) for row in await tables._writer.fetch(text)]


async def step(case: Case, state: KernelState, at: int) -> None:
    """Set the state of all kernels as anybody could."""
    await sql(case, f"UPDATE kernel SET state = {state:d}, state_at = {at}")  # noqa: S608 - numbers


async def history(case: Case) -> list[tuple[str, KernelState, KernelState, int]]:
    """What is in it: whose, from where, to where, when (Unix microseconds)."""
    text = "SELECT kernel, from_state, to_state, at FROM kernel_history ORDER BY kernel, from_state"
    return [(kernel, S(a), S(b), at) for kernel, a, b, at in await sql(case, text)]


async def assigned(case: Case) -> str:
    """Let one kernel have a place; its id."""
    await case.join()
    await case.submit()
    await case.place()
    return (await case.row()).kernels[0].id


async def test_every_step_of_a_kernels_life_is_in_the_history(case: Case) -> None:
    kernel = await assigned(case)
    await case.move(0, *LIFE[2:8])
    await case.move(0, S.EXITED, exit_code=0, cause="exited")
    await case.again()
    await case.move(0, S.REMOVED)

    when = [micros(later(1))] + [micros(later(2))] * 8
    steps = itertools.pairwise(LIFE)
    assert [(kernel, *step, at) for step, at in zip(steps, when, strict=True)] == await history(
        case
    )


async def test_a_step_that_nobody_of_ours_takes_is_in_the_history_too(case: Case) -> None:
    kernel = await assigned(case)
    before = await history(case)
    await sql(case, "UPDATE kernel SET message = 'looked at', state = state")
    same = await history(case)
    await step(case, S.PREPARING, 7)

    assert before == same
    assert [*before, (kernel, S.ASSIGNED, S.PREPARING, 7)] == await history(case)


async def test_a_step_that_the_table_does_not_have_is_refused_to_anybody(case: Case) -> None:
    await assigned(case)
    before = await history(case)

    with pytest.raises((sqlite3.IntegrityError, asyncpg.ForeignKeyViolationError)):
        await step(case, S.RUNNING, 7)

    assert before == await history(case)
    assert [(S.ASSIGNED,)] == list(await sql(case, "SELECT state FROM kernel"))
