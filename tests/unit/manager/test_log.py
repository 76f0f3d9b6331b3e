"""What the manager writes down."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator

import pytest
import structlog

from phalanx_manager import log
from phalanx_manager.loops.supervise import for_ever
from phalanx_manager.store.port import Unavailable


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What is written to a log that is made as the manager's."""
    stream = io.StringIO()
    before = structlog.get_config()
    structlog.configure(
        processors=log.processors(stream), logger_factory=structlog.PrintLoggerFactory(stream)
    )
    yield stream
    structlog.configure(**before)


def test_a_traceback_shows_no_values(written: io.StringIO) -> None:
    secret = "hunter" + "2"
    try:
        len(0 if secret else secret)  # type: ignore[arg-type]
    except TypeError:
        structlog.get_logger("test").exception("loop.failed")

    assert "Traceback" in written.getvalue()
    assert "hunter2" not in written.getvalue()


async def test_a_world_that_hinders_a_loop_is_one_line(written: io.StringIO) -> None:
    async def turn() -> None:
        if turns:
            raise asyncio.CancelledError
        turns["failed"] = 1
        raise Unavailable("the disk", "is full", "make room")

    turns: dict[str, int] = {}
    with pytest.raises(asyncio.CancelledError):
        await for_ever("schedule", turn, turns)

    (line,) = written.getvalue().splitlines()
    assert "loop.unavailable" in line
    assert "the disk: is full; make room" in line
