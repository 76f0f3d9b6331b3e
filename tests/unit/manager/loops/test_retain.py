"""Archives are forgotten but those that live sessions name."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from phalanx_manager.loops.retain import Retain
from tests.unit.manager.loops.conftest import House

DIGEST = "sha256:" + "a" * 64


async def test_what_a_live_session_names_is_kept(house: House) -> None:
    kept: list[Collection[str]] = []

    def forget(live: Collection[str]) -> int:
        kept.append(live)
        return 0

    await house.submit(upload=DIGEST)
    loop = Retain(house.store, house.clock, timedelta(days=30))
    loop.attach(forget)
    await loop.turn()

    assert [{DIGEST}] == kept
