"""Sessions that wait for more than a place."""

from __future__ import annotations

from phalanx_wire.ids import SessionId
from tests.support.house import SID, observed
from tests.unit.manager.loops.conftest import House, Player

TWO = SessionId("bbbbbbbbbbbb")


async def one_host(house: House) -> Player:
    await house.join("a")
    player = Player(house, "a", observed("a"))
    player.connect()
    await house.settle()
    return player


async def to_the_end(house: House, player: Player, code: int) -> None:
    for _ in range(4):
        player.obey(code=code)
        await house.settle()


async def test_a_session_runs_when_the_one_before_it_has_succeeded(house: House) -> None:
    player = await one_host(house)
    await house.submit(name="first")
    await house.submit(TWO, after=f"afterok:{SID}")
    await house.settle()
    waiting = (await house.row(TWO)).session
    await to_the_end(house, player, 0)
    house.kill()
    player.connect()
    await house.settle()

    assert ("pending", "waits for the end of session first") == (waiting.state, waiting.reason)
    assert "pending" != (await house.row(TWO)).session.state


async def test_a_session_whose_condition_cannot_come_true_is_cancelled(house: House) -> None:
    player = await one_host(house)
    await house.submit(name="first")
    await house.submit(TWO, after=f"afterok:{SID}", requeue=True)
    await house.settle()
    await to_the_end(house, player, 3)
    session = (await house.row(TWO)).session

    assert "cancelled" == session.state
    assert session.reason == "it was to run after the success of session first, which is failed"


async def test_who_waits_for_others_keeps_nobody_waiting(house: House) -> None:
    await one_host(house)
    await house.submit(after=f"afterok:{TWO}", priority=5)
    await house.submit(TWO)
    await house.settle()

    assert "pending" != (await house.row(TWO)).session.state


async def test_a_held_session_gets_no_place_until_it_is_released(house: House) -> None:
    await one_host(house)
    await house.submit()
    await house.store.hold(SID, "held by ada", house.clock.now(), held=True)
    house.kill()
    player = Player(house, "a", observed("a"))
    player.connect()
    await house.settle()
    held = (await house.row()).session
    await house.store.hold(SID, "released by ada", house.clock.now(), held=False)
    await house.settle()

    assert ("pending", True) == (held.state, held.held)
    assert "scheduled" == (await house.row()).session.state
