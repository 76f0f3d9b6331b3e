"""The stores that one suite holds equal: SQLite in memory and in a file, and PostgreSQL."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from phalanx_manager.store.database import MEMORY
from tests.support import postgres
from tests.support.store_case import Case, in_postgres, in_sqlite


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """One PostgreSQL for the whole run, started when the first test asks for it."""
    with postgres.running() as made:
        yield made


@pytest.fixture(params=["memory", "file", "postgres"])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    match request.param:
        case "memory":
            made = Case(functools.partial(in_sqlite, MEMORY), lasting=False)
        case "file":
            made = Case(functools.partial(in_sqlite, str(tmp_path / "phalanx.db")))
        case _:
            server: postgres.Server = request.getfixturevalue("server")
            made = Case(functools.partial(in_postgres, await server.with_schema()))
    await made.begin()
    yield made
    await made.end()


@pytest.fixture
def logged() -> Iterator[list[dict[str, object]]]:
    with structlog.testing.capture_logs() as lines:
        yield lines  # type: ignore[misc]
