"""Goals that never arrive are sent again, and reports that arrive late are dropped."""

from __future__ import annotations

import msgspec

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


async def test_a_report_that_comes_after_a_newer_one_is_dropped(house: House) -> None:
    await house.join("a")
    player = Player(house, "a")
    player.connect()
    for number, warning in ((2, "new"), (1, "old")):
        player.base = msgspec.structs.replace(player.base, number=number, warnings=(warning,))
        player.say()
        await house.settle()

    record = (await house.store.load()).agents[A]
    assert record.observed is not None
    assert ("new",) == record.observed.warnings


async def test_another_process_of_an_agent_counts_its_reports_anew(house: House) -> None:
    await house.join("a")
    player = Player(house, "a")
    for number, warning in ((7, "the first"), (1, "the second")):
        player.base = msgspec.structs.replace(player.base, number=number, warnings=(warning,))
        player.connect()
        await house.settle()

    record = (await house.store.load()).agents[A]
    assert record.observed is not None
    assert ("the second",) == record.observed.warnings
