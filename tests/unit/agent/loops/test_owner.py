"""What an agent does beside kernels: networks, the swarm, strays, the guard, the heartbeat."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec
import pytest

from phalanx_agent.docker.port import NetworkFacts, Unavailable
from phalanx_agent.host.guard import GuardFailed
from phalanx_agent.host.inside import network_of
from phalanx_agent.host.remains import RemainsStay
from phalanx_agent.loops import networks
from phalanx_agent.loops.hub import Hub
from phalanx_agent.loops.leave import Leaving
from phalanx_agent.loops.streams import Streams
from phalanx_agent.loops.swarm import SwarmMember
from phalanx_agent.loops.sweep import GuardLoop
from phalanx_wire.control import Goals, Stray, SwarmGoal, SwarmReport, Welcome
from phalanx_wire.ids import ClusterName, SessionId
from phalanx_wire.lifecycle import KernelState as S
from tests.support.agent_life import MAIN1, Life, assignment, goals, living
from tests.support.execs import execs_of
from tests.support.fake_engine import FakeEngine, refusal
from tests.support.fake_host import FakeHost
from tests.unit.agent.loops.test_streams import TEMPORARY, Kept

NETWORK = "phx-aaaaaaaaaaaa-1"
WELCOME = Welcome("c1", ClusterName("default"), 5.0, "10.212.0.0/20")


def networks_of(life: Life) -> dict[str, str]:
    return {report.name: report.engine_id for report in life.said[-1].networks}


async def test_an_owned_network_is_made_at_once_and_told(host: FakeHost) -> None:
    async with living(host) as life:
        life.fleet.take(goals())
        await life.settle()

        (made,) = host.engine.networks.values()
        assert {NETWORK: made.id} == networks_of(life)


async def test_a_network_that_shall_go_is_not_told_gone_before_it_is(host: FakeHost) -> None:
    async with living(host) as life:
        life.fleet.take(goals())
        await life.settle()
        host.engine.held["remove_network"] = asyncio.Event()
        life.fleet.take(msgspec.structs.replace(goals(network=False), revision=2))
        await life.settle()
        (going,) = life.said[-1].networks
        host.engine.held["remove_network"].set()
        await life.settle()
        (gone,) = life.said[-1].networks

        assert 2 == life.said[-1].revision
        assert going.engine_id != ""
        assert ("", "") == (gone.engine_id, gone.problem)
        assert {} == host.engine.networks


async def test_a_network_that_could_never_be_made_is_gone_as_soon_as_it_shall_be(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        overlaps = "Pool overlaps with other one on this address space"
        host.engine.failures["create_network"] = deque([refusal(403, overlaps)])
        life.fleet.take(goals())
        await life.settle()
        (failed,) = life.said[-1].networks
        life.fleet.take(goals(network=False))
        await life.settle()
        (gone,) = life.said[-1].networks

    assert overlaps in failed.problem
    assert ("", "") == (gone.engine_id, gone.problem)


async def test_a_restarted_owner_removes_the_network_that_it_made_before(host: FakeHost) -> None:
    async with living(host) as life:
        life.fleet.take(goals())
        await life.settle()
    async with living(host) as life:
        host.engine.held["remove_network"] = asyncio.Event()
        life.fleet.take(goals(network=False))
        await life.settle()
        (going,) = life.said[-1].networks
        host.engine.held["remove_network"].set()
        await life.settle()

        assert going.problem != ""
        assert {} == host.engine.networks


async def test_a_network_that_is_in_use_is_tried_again(host: FakeHost) -> None:
    async with living(host) as life:
        life.fleet.take(goals())
        await life.settle()
        host.engine.failures["remove_network"] = deque([refusal(403, "it is in use")])
        life.fleet.take(goals(network=False))
        await life.settle()
        (going,) = life.said[-1].networks

        assert "it is in use" in going.problem
        assert not going.final


async def test_a_network_that_stays_behind_is_named_until_it_is_gone(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "BACKOFF_S", (0.0, 0.0))
    async with living(host) as life:
        life.fleet.take(goals())
        await life.settle()
        host.engine.failures["remove_network"] = deque([refusal(403, "It has active endpoints.")])
        life.fleet.take(goals(network=False))
        await life.until(lambda: not host.engine.networks)
        await life.settle()

        ((warning,),) = {said.warnings for said in life.said if said.warnings}
        assert f"{NETWORK} of an ended session stays" in warning
        assert "It has active endpoints." in warning
        assert () == life.said[-1].warnings


async def test_addresses_that_are_still_held_are_asked_for_again(host: FakeHost) -> None:
    overlaps = refusal(403, "Pool overlaps with other one on this address space.")
    async with living(host) as life:
        host.engine.failures["create_network"] = deque([overlaps])
        life.fleet.take(goals())
        await life.settle()
        (told,) = life.said[-1].networks

        assert ("", False) == (told.engine_id, told.final)


async def test_a_network_that_the_engine_judges_wrong_is_not_asked_for_again(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        host.engine.failures["create_network"] = deque([refusal(400, "invalid subnet")])
        life.fleet.take(goals())
        await life.settle()
        (told,) = life.said[-1].networks

        assert ("", True) == (told.engine_id, told.final)


async def test_a_forgotten_network_is_told_no_more(host: FakeHost) -> None:
    async with living(host) as life:
        life.fleet.take(goals())
        await life.settle()
        life.fleet.take(Goals(2))
        await life.settle()

        assert {} == networks_of(life)


async def listed(life: Life) -> None:
    life.watch.bell.set()
    await life.settle()


async def test_what_nobody_claims_is_told_after_two_looks_and_left_alone(host: FakeHost) -> None:
    other = SessionId("bbbbbbbbbbbb")
    host.engine.networks["n"] = NetworkFacts(
        "n", "phx-bbbbbbbbbbbb-1", other, 1, "bridge", "10.0.0.0/26"
    )
    async with living(host) as life:
        await life.reach(S.RUNNING)
        life.fleet.take(Goals(2))
        await listed(life)
        once = life.said[-1].strays
        await listed(life)

        assert () == once
        assert {
            Stray("container", host.engine.of(MAIN1).name),
            Stray("network", "phx-bbbbbbbbbbbb-1"),
            Stray("network", NETWORK),
        } == set(life.said[-1].strays)
        assert "running" == host.engine.of(MAIN1).status


async def test_files_that_nobody_can_need_are_cleared(host: FakeHost) -> None:
    host.scratch.texts[MAIN1] = {}
    async with living(host) as life:
        life.fleet.take(Goals(1))
        await listed(life)

        assert frozenset() == host.scratch.kernels()


async def test_files_stay_while_what_its_engine_has_lost_runs(host: FakeHost) -> None:
    host.scratch.mark(MAIN1, "c1")
    host.remains_stay = RemainsStay("Process 7 stays.")
    async with living(host) as life:
        life.fleet.take(Goals(1))
        await listed(life)
        held = host.scratch.kernels()
        host.remains_stay = None
        await listed(life)

    assert (frozenset((MAIN1,)), frozenset()) == (held, host.scratch.kernels())
    assert ["c1"] == host.remains_ended


async def test_an_engine_that_does_not_answer_is_told(host: FakeHost) -> None:
    away = Unavailable("engine", "asking", "It is away.", kind="not_sent")
    async with living(host) as life:
        host.engine.failures["info"] = deque([away])
        await listed(life)

        assert "It is away." in life.said[-1].engine.problem


async def test_an_engine_that_answers_is_told_with_its_version(host: FakeHost) -> None:
    async with living(host) as life:
        assert ("20.10", "") == (life.said[-1].engine.version, life.said[-1].engine.problem)


# -------------------------------------------------------------------- swarm


class Member:
    """A swarm member on a fake engine, and what it tells."""

    def __init__(self, engine: FakeEngine) -> None:
        self.told: list[SwarmReport] = []
        self.loop = SwarmMember(engine, lambda: "10.0.0.1", self.told.append)

    async def until(self, count: int) -> SwarmReport:
        for _ in range(1000):
            if len(self.told) >= count:
                return self.told[-1]
            await asyncio.sleep(0)
        raise AssertionError(self.told)


@asynccontextmanager
async def member(engine: FakeEngine) -> AsyncIterator[Member]:
    made = Member(engine)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.loop.run())
        try:
            await made.until(1)
            yield made
        finally:
            running.cancel()


@pytest.mark.parametrize(
    ("goal", "call"),
    [
        (SwarmGoal("init"), "swarm_init"),
        (SwarmGoal("join", token="W", remotes=("10.0.0.2:2377",)), "swarm_join"),
    ],
)
async def test_a_swarm_is_entered_as_told(goal: SwarmGoal, call: str) -> None:
    engine = FakeEngine()
    async with member(engine) as agent:
        agent.loop.take(goal)
        told = await agent.until(2)

        assert "active" == told.state
        assert call in engine.calls


async def test_a_member_of_a_swarm_stays_in_it() -> None:
    engine = FakeEngine()
    engine.swarm_report = SwarmReport("active", "foreign")
    async with member(engine) as agent:
        agent.loop.take(SwarmGoal("init"))
        told = await agent.until(2)

        assert "foreign" == told.swarm_id
        assert "swarm_init" not in engine.calls


async def test_the_canary_proves_that_networks_can_be_made() -> None:
    engine = FakeEngine()
    engine.swarm_report = SwarmReport("active", control=True)
    async with member(engine) as agent:
        agent.loop.take(SwarmGoal("keep", canary=True))

        assert (await agent.until(2)).canary_ok


async def test_a_canary_that_dies_is_told_with_the_reason() -> None:
    engine = FakeEngine()
    engine.swarm_report = SwarmReport("active", control=True)
    engine.failures["swarm_canary"] = deque([refusal(500, "no quorum")])
    async with member(engine) as agent:
        agent.loop.take(SwarmGoal("keep", canary=True))
        told = await agent.until(2)

        assert not told.canary_ok
        assert "no quorum" in told.problem
        assert "active" == told.state


# -------------------------------------------------------------------- guard


class FakeGuard:
    """A guard that fails as often as it is told to."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.kept: list[tuple[str, ...]] = []

    async def keep(self, guarded: Iterable[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise GuardFailed("iptables is not installed.")
        self.kept.append(tuple(guarded))


async def test_no_work_is_taken_until_the_rules_hold() -> None:
    said: list[str] = []
    guard = FakeGuard(failures=1)
    loop = GuardLoop(guard, said.append)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(loop.run())
        await asyncio.sleep(0)
        loop.take(("10.0.0.1",))
        for _ in range(10):
            await asyncio.sleep(0)
        running.cancel()

    assert [True, True, False] == [text != "" for text in said]
    assert [("10.0.0.1",)] == guard.kept


# -------------------------------------------------------------------- hub


async def never() -> None:
    """There is nothing besides the engine's."""


def hub_of(life: Life, host: FakeHost, welcomes: list[Welcome]) -> Hub:
    swarm = SwarmMember(host.engine, lambda: "", life.board.swarm)
    execs = execs_of(host.engine)
    streams = Streams(host.engine, life.fleet, Kept(), network_of, execs, TEMPORARY)
    return Hub(life.board, life.fleet, swarm, streams, welcomes.append, lambda _: None)


async def test_who_leaves_takes_no_goals_any_more(host: FakeHost) -> None:
    async with living(host) as life:
        hub = hub_of(life, host, [])
        hub.leaving = Leaving(host.engine, never, lambda: None, life.board.left, lambda _: None)
        hub.goals(msgspec.structs.replace(goals(), revision=1, leave=True))
        hub.goals(msgspec.structs.replace(goals(assignment(S.CREATED)), revision=2))
        await life.settle()

        assert hub.leaving.begun.is_set()
        assert life.fleet.goals is not None
        assert 1 == life.fleet.goals.revision


async def test_a_welcome_is_answered_with_everything(host: FakeHost) -> None:
    welcomes: list[Welcome] = []
    async with living(host) as life:
        hub = hub_of(life, host, welcomes)
        hub.goals(msgspec.structs.replace(goals(), revision=9))
        await life.settle()
        before = len(life.said)
        hub.welcomed(WELCOME)

        assert [WELCOME] == welcomes
        assert -1 == life.said[before].revision


async def test_a_new_connection_starts_nothing_before_it_has_brought_goals(host: FakeHost) -> None:
    async with living(host) as life:
        life.fleet.take(goals(assignment(S.CREATED)))
        await life.until(lambda: life.state() is S.CREATED)
        hub = hub_of(life, host, [])
        hub.welcomed(WELCOME)
        (beat,) = life.beats
        hub.heard(beat.number)
        life.fleet.take(goals(assignment(S.RUNNING)))
        await life.settle()
        before = life.state()
        hub.goals(goals(assignment(S.RUNNING)))
        await life.until(lambda: life.state() is S.RUNNING)

        assert S.CREATED is before


async def test_a_new_connection_lets_nothing_go_on_that_its_goals_do_not_claim(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        hub = hub_of(life, host, [])
        life.workshop.lease.answered_s = host.now()
        hub.goals(goals(assignment(S.RUNNING)))
        await life.until(lambda: life.state() is S.RUNNING)
        first = host.scratch.leases[MAIN1]
        await life.pass_time(100)
        hub.welcomed(WELCOME)
        hub.heard(life.beats[-1].number)
        unclaimed = host.scratch.leases[MAIN1]
        hub.goals(goals(assignment(S.RUNNING)))

        assert first == unclaimed
        assert first + 100 <= host.scratch.leases[MAIN1]


async def test_goals_that_come_late_are_dropped(host: FakeHost) -> None:
    async with living(host) as life:
        hub = hub_of(life, host, [])
        hub.goals(msgspec.structs.replace(goals(assignment(S.CREATED)), revision=9))
        hub.goals(Goals(8))
        await life.settle()

        assert {MAIN1: S.CREATED} == life.states()
        assert 9 == life.said[-1].revision


async def test_a_new_connection_counts_anew(host: FakeHost) -> None:
    async with living(host) as life:
        hub = hub_of(life, host, [])
        hub.goals(msgspec.structs.replace(goals(), revision=9))
        hub.welcomed(WELCOME)
        hub.goals(Goals(1))
        await life.settle()

        assert 1 == life.said[-1].revision


async def test_a_heartbeat_is_said_without_news(host: FakeHost) -> None:
    async with living(host) as life:
        hub = hub_of(life, host, [])
        hub.welcomed(msgspec.structs.replace(WELCOME, heartbeat_s=0.0))
        before = len(life.said)
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(hub.heartbeat())
            await life.until(lambda: len(life.said) > before + 2)
            beating.cancel()
