"""Signals to commands before they are stopped: in the goals of all who run, until they stop."""

from __future__ import annotations

from typing import Any

from phalanx_manager.core.model import Drain, Stop, StopCause
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.notice import Notice
from tests.support.house import SID, observed, report
from tests.unit.manager.loops.conftest import House, Player, two_hosts

A, B = AgentId("a"), AgentId("b")
LIMIT = (Notice("limit", 10),)


async def running(house: House, **fields: Any) -> tuple[Player, ...]:
    players = await two_hosts(house)
    await house.submit(size=2, mode="multi-node", **fields)
    await house.settle()
    for _ in range(4):
        for player in players:
            player.obey()
        await house.settle()
    assert "running" == (await house.row()).session.state
    return players


async def ruled(house: House) -> None:
    house.govern.bell.ring()
    await house.govern.turn()
    await house.settle()


def told(house: House, *agents: AgentId) -> list[tuple[Notice, ...]]:
    """What the goals of agents say of signals."""
    return [one.notices for agent in agents for one in house.post.told[agent].kernels]


async def test_all_ranks_are_warned_before_the_limit(house: House) -> None:
    await running(house, time_limit_s=100.0, warn_signal="USR1@90")
    before = told(house, A, B)
    house.clock.passed_s += 11
    await ruled(house)
    first = told(house, A, B)
    await ruled(house)
    kinds = [event.kind for event in await house.store.events(0, SID, 1_000)]

    assert [(), ()] == before
    assert [LIMIT, LIMIT] == first == told(house, A, B)
    assert 1 == kinds.count("session.warned")


async def test_a_manager_that_died_right_after_deciding_tells_it_as_the_same_notice(
    house: House,
) -> None:
    players = await running(house, time_limit_s=100.0, warn_signal="USR1@90")
    house.clock.passed_s += 11
    house.post.away = {A, B}
    await ruled(house)
    house.kill()
    for player in players:
        player.connect()
    await house.settle()

    assert [LIMIT, LIMIT] == told(house, A, B)


async def test_a_manager_that_was_away_at_that_moment_warns_when_it_is_back(house: House) -> None:
    players = await running(house, time_limit_s=100.0, warn_signal="USR1@90")
    house.clock.passed_s += 40
    house.kill()
    for player in players:
        player.connect()
    await ruled(house)

    assert [LIMIT, LIMIT] == told(house, A, B)


async def test_an_agent_that_is_away_hears_it_when_it_is_back(house: House) -> None:
    _, player = await running(house, time_limit_s=100.0, warn_signal="USR1@90")
    house.post.away = {B}
    house.clock.passed_s += 11
    await ruled(house)
    first = told(house, A, B)
    house.post.away = set()
    player.connect()
    await house.settle()

    assert [LIMIT, ()] == first
    assert [LIMIT, LIMIT] == told(house, A, B)


async def test_a_drain_tells_its_sessions_at_once_and_stops_them_at_the_deadline(
    house: House,
) -> None:
    await running(house, requeue=True)
    now = house.clock.now()
    await house.store.drain(A, Drain("ada", now, None, 12), "drained", now)
    await ruled(house)
    heard = [notice.signal for notices in told(house, A, B) for notice in notices]
    await house.store.drain(A, Drain("ada", now, now, 12), "drained", now)
    await ruled(house)
    (record, _) = await house.store.agents()
    row = await house.row()

    assert [12, 12] == heard
    assert record.drain is not None
    assert record.drain.signalled
    assert row.session.stop is not None
    assert "agent a is drained: ada" == row.session.stop.text


async def test_a_host_that_cannot_end_a_container_is_drained_by_itself(house: House) -> None:
    await running(house)
    kernel = (await house.row()).kernels[0]
    assert kernel.agent is not None
    await house.store.stop(SID, Stop(StopCause.USER, "enough", house.clock.now()))
    player = Player(house, kernel.agent)
    player.states = {kernel.id: report(kernel, KernelState.STOPPING)}
    player.say()
    await house.settle()
    house.clock.passed_s += 131
    for name in (A, B):
        house.converge.observed(name, observed(name))
    await house.govern.turn()
    drain = {record.name: record.drain for record in await house.store.agents()}[kernel.agent]

    assert drain is not None
    assert drain.reason.startswith("by itself: rank 0 (main1) on agent a is STOPPING and not gone")
