"""Goals that never arrive are sent again."""

from __future__ import annotations

from phalanx_manager.loops.converge import UNANSWERED_S
from phalanx_wire.ids import AgentId
from tests.unit.manager.loops.conftest import House, Player

A = AgentId("a")


async def lost_goals(house: House) -> Player:
    """An agent to which the goals of a session were sent, and did not come."""
    await house.join("a")
    player = Player(house, "a")
    player.connect()
    await house.settle()
    player.say()
    before = house.post.told[A]
    await house.submit()
    await house.settle()
    house.post.told[A] = before
    return player


async def test_goals_that_are_not_answered_are_sent_again(house: House) -> None:
    player = await lost_goals(house)
    house.clock.passed_s += UNANSWERED_S + 1
    player.say()
    await house.settle()

    assert ["RUNNING"] == [kernel.goal.name for kernel in house.post.told[A].kernels]


async def test_goals_get_the_time_to_be_answered(house: House) -> None:
    player = await lost_goals(house)
    house.clock.passed_s += UNANSWERED_S / 2
    player.say()
    await house.settle()

    assert () == house.post.told[A].kernels
