"""Signals to commands: to all who run, at most once, again only where it surely did not arrive."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from phalanx_manager.core.model import Drain, Stop, StopCause
from phalanx_manager.loops.signals import Signals
from phalanx_manager.rpc.failure import Unavailable
from phalanx_wire.control import Message
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Mux, Stream
from phalanx_wire.stream import Call, SignalCall
from tests.support.house import SID, in_swarm, observed, report
from tests.unit.manager.loops.conftest import House, Player

A, B = AgentId("a"), AgentId("b")


@dataclass
class Ears:
    """The way to agents that take every signal; agents in `away` are not there."""

    away: set[AgentId] = field(default_factory=set)
    heard: list[tuple[AgentId, int]] = field(default_factory=list)

    async def open(self, agent: AgentId, call: Call) -> Stream:
        if agent in self.away:
            raise Unavailable(f"agent {agent}", "it is not connected")
        assert isinstance(call, SignalCall)
        self.heard.append((agent, call.signal))

        async def down(message: Message) -> None:
            theirs.receive(message)

        async def up(message: Message) -> None:
            ours.receive(message)

        ours = Mux(down, 0, lambda _open, _stream: None)
        theirs = Mux(up, 1, lambda _open, stream: closing.append(stream))
        closing: list[Stream] = []
        stream = await ours.open(call, 1 << 20)
        await closing[0].close()
        return stream


async def running(house: House, **fields: Any) -> tuple[Signals, Ears]:
    await house.join("a", "b")
    players = (
        Player(house, "a", in_swarm("a", control=True, cpu=4)),
        Player(house, "b", in_swarm("b", cpu=4)),
    )
    for player in players:
        player.connect()
    await house.settle()
    await house.submit(size=2, mode="multi-node", **fields)
    await house.settle()
    for _ in range(4):
        for player in players:
            player.obey()
        await house.settle()
    assert "running" == (await house.row()).session.state
    ears = Ears()
    return hearing(house, ears), ears


def hearing(house: House, ears: Ears) -> Signals:
    """Let the governing loop's orders be heard."""
    signals = Signals(house.store)
    signals.attach(ears)
    house.govern._order = signals.order
    return signals


async def ruled(house: House, signals: Signals) -> None:
    house.govern.bell.ring()
    await house.govern.turn()
    async with asyncio.timeout(5):
        await signals.turn()


async def test_all_ranks_are_warned_once_before_the_limit(house: House) -> None:
    signals, ears = await running(house, time_limit_s=100.0, warn_signal="USR1@90")
    house.clock.passed_s += 11
    await ruled(house, signals)
    signals.bell.ring()
    await ruled(house, signals)
    kinds = [event.kind for event in await house.store.events(0, SID, 1_000)]

    assert [(A, 10), (B, 10)] == sorted(ears.heard)
    assert 1 == kinds.count("session.warned")


async def test_a_manager_that_was_killed_does_not_warn_again(house: House) -> None:
    signals, ears = await running(house, time_limit_s=100.0, warn_signal="USR1@90")
    house.clock.passed_s += 11
    await ruled(house, signals)
    house.kill()
    again = hearing(house, ears)
    again.bell.ring()
    await ruled(house, again)

    assert 2 == len(ears.heard)


async def test_a_manager_that_was_away_at_that_moment_warns_when_it_is_back(house: House) -> None:
    _, ears = await running(house, time_limit_s=100.0, warn_signal="USR1@90")
    house.clock.passed_s += 40
    house.kill()
    await ruled(house, hearing(house, ears))

    assert [(A, 10), (B, 10)] == sorted(ears.heard)


async def test_an_agent_that_is_away_hears_it_when_it_is_back(house: House) -> None:
    signals, ears = await running(house, time_limit_s=100.0, warn_signal="USR1@90")
    ears.away = {B}
    house.clock.passed_s += 11
    await ruled(house, signals)
    first = list(ears.heard)
    ears.away = set()
    signals.bell.ring()
    await signals.turn()

    assert [(A, 10)] == first
    assert [(A, 10), (B, 10)] == ears.heard


async def test_a_drain_tells_its_sessions_at_once_and_stops_them_at_the_deadline(
    house: House,
) -> None:
    signals, ears = await running(house, requeue=True)
    now = house.clock.now()
    await house.store.drain(A, Drain("ada", now, now, 12), "drained", now)
    await ruled(house, signals)
    (record, _) = await house.store.agents()
    row = await house.row()

    assert [(A, 12), (B, 12)] == sorted(ears.heard)
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
