"""What the scheduling loop does when the store does not take a place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest

from phalanx_manager.core.seat import Placement
from phalanx_manager.store.sqlite import SqliteStore
from tests.support.house import SID, observed
from tests.unit.manager.loops.conftest import House, Player

Place = Callable[[SqliteStore, Placement, datetime], Awaitable[bool]]


async def ready(house: House) -> None:
    """Have a session that waits, and a host with room for it."""
    await house.join("a")
    Player(house, "a", observed("a")).connect()
    house.converge.bell.ring()
    await house.converge.turn()
    await house.submit()


async def test_a_place_that_is_refused_is_not_tried_again_before_something_changes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(store: SqliteStore, placement: Placement, at: datetime) -> bool:
        return False

    await ready(house)
    monkeypatch.setattr(SqliteStore, "place", refuses)
    await house.schedule.turn()

    assert not await house.schedule.bell.wait(0)


async def test_what_moves_while_a_place_is_refused_gives_it_another_look(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    place: Place = SqliteStore.place

    async def is_overtaken(store: SqliteStore, placement: Placement, at: datetime) -> bool:
        monkeypatch.setattr(SqliteStore, "place", place)
        await store.hold(SID, "held by ada", at, held=True)
        await store.hold(SID, "released by ada", at, held=False)
        return False

    await ready(house)
    monkeypatch.setattr(SqliteStore, "place", is_overtaken)
    await house.schedule.turn()
    before = (await house.row()).session.state
    await house.schedule.turn()

    assert ("pending", "scheduled") == (before, (await house.row()).session.state)
