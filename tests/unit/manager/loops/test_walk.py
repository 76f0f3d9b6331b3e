"""Sessions from submission to their end, through the loops and the store."""

from __future__ import annotations

import msgspec

from phalanx_manager.core.model import Stop, StopCause
from phalanx_wire.control import Observed, SwarmReport
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.spec import Resources
from tests.support.house import SID, in_swarm, observed
from tests.unit.manager.loops.conftest import House, Player, two_hosts

S = KernelState
A, B = AgentId("a"), AgentId("b")
TWO = SessionId("bbbbbbbbbbbb")


async def step(house: House, *players: Player, code: int = 0) -> None:
    for player in players:
        player.obey(code=code)
    await house.settle()


def goals_of(house: House, agent: AgentId) -> list[str]:
    return [assignment.goal.name for assignment in house.post.told[agent].kernels]


async def test_a_gang_over_two_hosts_passes_every_barrier_together(house: House) -> None:
    a, b = await two_hosts(house)
    await house.submit(size=4, mode="multi-node")
    await house.settle()
    seen: list[list[str]] = []
    for _ in range(5):
        assert goals_of(house, A) == goals_of(house, B)
        seen.append(goals_of(house, A))
        await step(house, a, b)

    assert [["CREATED"] * 2, ["READY"] * 2, ["MESHED"] * 2, ["RUNNING"] * 2, ["RUNNING"] * 2] == (
        seen
    )
    session = (await house.row()).session
    assert ("succeeded", 0) == (session.state, session.exit_code)


async def test_no_kernel_gets_the_next_goal_while_one_is_behind(house: House) -> None:
    a, b = await two_hosts(house)
    await house.submit(size=2, mode="multi-node")
    await house.settle()
    await step(house, a)

    assert (["CREATED"], ["CREATED"]) == (goals_of(house, A), goals_of(house, B))
    await step(house, b)
    assert (["READY"], ["READY"]) == (goals_of(house, A), goals_of(house, B))


async def test_when_all_is_over_nothing_is_left_in_goals_slots_or_memory(house: House) -> None:
    a, b = await two_hosts(house)
    await house.submit(size=2, mode="multi-node")
    await house.settle()
    for _ in range(8):
        await step(house, a, b)
    told = house.post.told[A]

    assert ((), (), ()) == (told.gangs, told.kernels, told.networks)
    assert {} == (await house.store.load()).sessions
    assert (0, {}) == (len(house.converge._memo), house.converge._removals)


async def test_one_failure_stops_the_others_and_gives_its_code(house: House) -> None:
    a, b = await two_hosts(house)
    await house.submit(size=2, mode="multi-node")
    await house.settle()
    for _ in range(4):
        await step(house, a, b)
    await step(house, b, code=7)
    assert (["STOPPED"], ["REMOVED"]) == (goals_of(house, A), goals_of(house, B))
    await step(house, a, b)
    session = (await house.row()).session

    assert ("failed", 7) == (session.state, session.exit_code)
    assert "rank 1 (sub1) on agent b exited with code 7" == session.reason


async def test_the_manager_may_be_killed_after_every_single_turn(house: House) -> None:
    a, b = await two_hosts(house)
    await house.submit(size=4, mode="multi-node")
    for _ in range(12):
        house.kill()
        for player in (a, b):
            player.connect()
        await house.settle()
        for player in (a, b):
            player.obey()
        await house.converge.turn()
    session = (await house.row()).session

    assert ("succeeded", 0) == (session.state, session.exit_code)
    assert {} == (await house.store.load()).sessions


async def test_revisions_grow_over_a_restart(house: House) -> None:
    a, _ = await two_hosts(house)
    before = house.post.told[A].revision
    house.kill()
    a.connect()
    await house.settle()

    assert before < house.post.told[A].revision


async def test_an_agent_is_told_only_what_is_new_and_everything_when_it_comes_back(
    house: House,
) -> None:
    a, b = await two_hosts(house)
    count = house.post.count
    for player in (a, b):
        player.say()
    await house.settle()
    same = house.post.count
    a.connect()
    await house.settle()

    assert (count, count + 1) == (same, house.post.count)


async def test_what_could_not_be_sent_is_sent_when_the_agent_is_there_again(house: House) -> None:
    a, _ = await two_hosts(house)
    house.post.away = {A}
    await house.submit(size=1)
    await house.settle()
    assert () == house.post.told[A].kernels
    house.post.away = set()
    a.connect()
    await house.settle()

    assert ["RUNNING"] == goals_of(house, A)


async def test_a_silent_agents_gang_fails_and_heals_when_it_is_back(house: House) -> None:
    a, b = await two_hosts(house)
    await house.submit(size=2, mode="multi-node")
    await house.settle()
    for _ in range(4):
        await step(house, a, b)
    house.clock.passed_s += 200
    a.say()
    await house.settle()
    house.clock.passed_s += 106
    await house.govern.turn()
    await house.settle()
    assert ["STOPPED"] == goals_of(house, A)
    await step(house, a)
    await step(house, a)
    lost = await house.row()
    b.connect()
    await house.settle()
    assert ["REMOVED"] == goals_of(house, B)
    for _ in range(3):
        await step(house, a, b)

    assert "failed" == lost.session.state
    assert "rank 1 (sub1) on agent b is lost: its agent has been silent for 306 s" == (
        lost.session.reason
    )
    assert {} == (await house.store.load()).sessions


async def test_a_session_that_needs_hosts_makes_the_swarm_and_then_gets_them(house: House) -> None:
    await house.join("a", "b")
    a, b = Player(house, "a"), Player(house, "b")
    for player in (a, b):
        player.connect()
    await house.settle()
    assert (None, None) == (house.post.told[A].swarm, house.post.told[B].swarm)
    for player in (a, b):
        player.say()
    await house.submit(size=2, mode="multi-node")
    await house.settle()
    asked = house.post.told[A].swarm
    a.base = in_swarm("a", control=True)
    a.say()
    await house.settle()
    joining = house.post.told[B].swarm
    b.base = in_swarm("b")
    b.say()
    await house.settle()

    assert asked is not None
    assert ("init", True) == (asked.action, asked.canary)
    assert joining is not None
    assert ("join", "W") == (joining.action, joining.token)
    assert ["a", "b"] == [kernel.agent for kernel in (await house.row()).kernels]


async def test_another_begins_the_swarm_only_when_the_first_has_heard_that_it_shall_not(
    house: House,
) -> None:
    await house.join("a", "b")
    a, b = Player(house, "a"), Player(house, "b")
    for player in (a, b):
        player.connect()
    await house.settle()
    for player in (a, b):
        player.say()
    await house.submit(size=2, mode="multi-node")
    await house.settle()
    a.base = observed("a", swarm=SwarmReport(state="inactive", problem="port 2377 is taken"))
    house.post.away.add(A)
    a.say()
    await house.settle()
    unheard = house.post.told[B].swarm
    house.post.away.clear()
    a.connect()
    await house.settle()
    unanswered = house.post.told[A].swarm, house.post.told[B].swarm
    a.say()
    await house.settle()
    asked = house.post.told[B].swarm

    assert unheard is None
    assert (None, None) == unanswered
    assert asked is not None
    assert ("init", None) == (asked.action, house.post.told[A].swarm)


async def test_a_swarm_is_not_made_for_a_session_that_fits_on_one_host(house: House) -> None:
    await house.join("a", "b")
    for name in "ab":
        Player(house, name).connect()
    await house.settle()
    await house.submit(size=2)
    await house.settle()

    assert (None, None) == (house.post.told[A].swarm, house.post.told[B].swarm)


async def test_who_does_not_fit_keeps_those_behind_waiting_until_room_is_free(house: House) -> None:
    await house.join("a")
    a = Player(house, "a", observed("a", cpu=2))
    a.connect()
    three = SessionId("cccccccccccc")
    await house.submit()
    await house.settle()
    await house.submit(TWO, resources=Resources(cpu=2))
    house.clock.passed_s += 1
    await house.submit(three)
    await house.settle()
    second, third = await house.row(TWO), await house.row(three)
    assert ("pending", "pending") == (second.session.state, third.session.state)
    assert "a has cpu 1" in second.session.reason
    assert "waits its turn behind session name-bbbb" == third.session.reason
    for _ in range(4):
        await step(house, a)

    assert {S.PENDING} != {kernel.state for kernel in (await house.row(TWO)).kernels}


async def test_a_stop_is_told_at_once_with_its_grace(house: House) -> None:
    a, _ = await two_hosts(house)
    await house.submit()
    await house.settle()
    await step(house, a)
    await house.store.stop(SID, Stop(StopCause.USER, "ada stopped it", house.clock.now(), None, 3))
    await house.settle()
    (assignment,) = house.post.told[A].kernels

    assert (S.STOPPED, 3.0) == (assignment.goal, assignment.grace_s)
    await step(house, a)
    assert ("cancelled", "ada stopped it") == (
        (await house.row()).session.state,
        (await house.row()).session.reason,
    )


async def test_containers_are_kept_from_all_hosts_and_the_manager(house: House) -> None:
    await two_hosts(house)

    assert ("192.0.2.1", "192.0.2.100", "192.0.2.2") == house.post.told[A].guarded


async def test_reports_that_came_together_count_once_the_newest(house: House) -> None:
    a, _ = await two_hosts(house)
    await house.submit()
    await house.settle()
    old = msgspec.structs.replace(a.base, revision=house.post.told[A].revision)
    a.obey()
    newest = house.converge._inbox[A].report
    house.converge.observed(A, old)
    assert isinstance(newest, Observed)
    house.converge.observed(A, newest)
    await house.settle()

    assert S.RUNNING is (await house.row()).kernels[0].state


async def test_a_time_limit_is_ruled_when_it_is_due(house: House) -> None:
    a, _ = await two_hosts(house)
    await house.submit(time_limit_s=30.0)
    await house.settle()
    await step(house, a)
    await house.govern.turn()
    house.clock.passed_s += 30
    a.say()
    house.govern.bell.ring()
    await house.govern.turn()
    await house.settle()
    assert ["STOPPED"] == goals_of(house, A)
    await step(house, a)

    assert ("timeout", 124) == (
        (await house.row()).session.state,
        (await house.row()).session.exit_code,
    )


async def test_a_gang_that_fails_is_tried_again_as_a_whole_and_leaves_nothing(
    house: House,
) -> None:
    a, b = await two_hosts(house)
    await house.submit(size=2, mode="multi-node", max_attempts=2)
    await house.settle()
    for _ in range(4):
        await step(house, a, b)
    await step(house, b, code=7)
    await step(house, a, b)
    waiting = await house.row()
    house.clock.passed_s += 1
    for _ in range(12):
        await step(house, a, b)
    session = (await house.row()).session

    assert ("pending", 2) == (waiting.session.state, waiting.session.attempt)
    assert ("succeeded", 2) == (session.state, session.attempt)
    assert {} == (await house.store.load()).sessions
    assert (0, {}) == (len(house.converge._memo), house.converge._removals)


async def test_a_lost_hosts_session_goes_on_elsewhere_while_the_host_is_away(house: House) -> None:
    a, b = await two_hosts(house)
    await house.submit(size=1, requeue=True)
    await house.settle()
    (first,) = {kernel.agent for kernel in (await house.row()).kernels}
    home, other = (a, b) if first == A else (b, a)
    await step(house, home)
    house.clock.passed_s += 306
    other.say()
    await house.converge.turn()
    await house.govern.turn()
    await house.settle()
    row = await house.row()
    held = [kernel.state for past in row.past for kernel in past.kernels]
    house.clock.passed_s += 1
    await step(house, other)
    moved = await house.row()
    home.connect()
    await house.settle()
    told_home = goals_of(house, home.name)
    for _ in range(6):
        await step(house, home, other)

    assert [S.LOST] == held
    assert (2, [other.name]) == (moved.session.attempt, [k.agent for k in moved.kernels])
    assert ["REMOVED"] == told_home
    assert {} == (await house.store.load()).sessions


async def test_a_new_manager_begins_the_swarm_only_when_all_have_answered_to_it(
    house: House,
) -> None:
    await house.join("a", "b")
    a, b = Player(house, "a"), Player(house, "b")
    await house.submit(size=2, mode="multi-node")
    house.kill()
    for player in (a, b):
        player.base = msgspec.structs.replace(player.base, revision=-1)
        player.connect()
        house.converge.observed(player.name, player.base)
    await house.settle()
    early = house.post.told[A].swarm, house.post.told[B].swarm
    a.say()
    await house.settle()
    half = house.post.told[A].swarm
    b.say()
    await house.settle()
    asked = house.post.told[A].swarm

    assert (None, None) == early
    assert half is None
    assert asked is not None
    assert "init" == asked.action
