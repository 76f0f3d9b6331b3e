"""Whole placements: agents, subnet, addresses, devices; and why a session waits."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx_manager.core import address, orders, place, queue
from phalanx_manager.core.model import AgentRecord, SessionRow
from phalanx_manager.core.seat import Placement, Wait, plan
from phalanx_wire.control import Gpu
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.slots import Slots
from phalanx_wire.spec import Resources
from tests.support.house import (
    NOW,
    agent,
    in_swarm,
    later,
    observed,
    row,
    snapshot,
    with_kernel,
    with_session,
)

S = KernelState
POOL = IPv4Network("10.213.0.0/16")
TWO = SessionId("bbbbbbbbbbbb")


def waiting(size: int, **fields: object) -> SessionRow:
    return row([None] * size, S.PENDING, **fields)  # type: ignore[arg-type]


def planned(
    one: SessionRow, *records: AgentRecord, others: tuple[SessionRow, ...] = ()
) -> Placement | Wait:
    return plan(snapshot([one, *others], records), one, POOL, NOW)


def placed(one: SessionRow, *records: AgentRecord) -> Placement:
    found = planned(one, *records)
    assert isinstance(found, Placement), found
    return found


def swarm_of_two() -> tuple[AgentRecord, AgentRecord]:
    return agent("a", in_swarm("a", control=True, cpu=4)), agent("b", in_swarm("b", cpu=4))


def test_on_one_agent_the_network_is_a_bridge_of_its_own() -> None:
    found = placed(waiting(3), agent("a"))

    assert ("bridge", "a") == (found.network.driver, found.network.owner)
    subnet = IPv4Network(found.network.subnet)
    assert subnet.subnet_of(POOL)
    assert 26 == subnet.prefixlen
    last = subnet.broadcast_address
    assert [str(last - 3), str(last - 2), str(last - 1)] == [seat.address for seat in found.seats]


def test_over_several_agents_it_is_an_overlay_owned_by_a_swarm_manager() -> None:
    found = placed(waiting(4, mode="multi-node"), *swarm_of_two())

    assert ("overlay", "a") == (found.network.driver, found.network.owner)
    assert ["a", "a", "b", "b"] == [seat.agent for seat in found.seats]


def test_auto_takes_one_agent_where_the_gang_fits_and_several_where_not() -> None:
    two = swarm_of_two()

    assert 1 == len({seat.agent for seat in placed(waiting(4), *two).seats})
    assert 2 == len({seat.agent for seat in placed(waiting(5), *two).seats})


def test_multi_node_on_the_only_agent_is_what_it_is() -> None:
    assert "bridge" == placed(waiting(2, mode="multi-node"), agent("a")).network.driver


def test_without_a_swarm_a_multi_node_session_waits_and_blocks_nobody() -> None:
    found = planned(waiting(2, mode="multi-node"), agent("a"), agent("b"))

    assert isinstance(found, Wait)
    assert not found.blocks
    assert "the agents' engines are forming a swarm" in found.reason


def test_a_session_for_many_hosts_waits_for_those_that_are_joining() -> None:
    found = planned(waiting(3, mode="multi-node"), *swarm_of_two(), agent("c"))

    assert isinstance(found, Wait)
    assert "agents c are joining the swarm" in found.reason


def test_an_agent_gets_no_more_than_it_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "MOST_BYTES", 64 << 10)
    words = {"env": {"WORDS": "x" * (32 << 10)}}
    first = row(["a"], S.RUNNING, session=TWO, **words)
    more = row(["b"], S.RUNNING, session=SessionId("cccccccccccc"), **words)

    assert ["b"] == [seat.agent for seat in placed_beside(waiting(1, **words), first).seats]
    assert ["a"] == [seat.agent for seat in placed_beside(waiting(1), first).seats]
    found = planned(waiting(1, **words), *swarm_of_two(), others=(first, more))
    assert isinstance(found, Wait)
    assert not found.blocks
    assert "all containers on a, b would be more than the 64 KiB" in found.reason


def placed_beside(one: SessionRow, other: SessionRow) -> Placement:
    found = planned(one, *swarm_of_two(), others=(other,))
    assert isinstance(found, Placement), found
    return found


def test_what_does_not_fit_now_waits_with_the_numbers_and_blocks_those_behind() -> None:
    busy = row("aaaaaa", S.RUNNING, session=TWO)
    found = planned(waiting(1, resources=Resources(cpu=4)), agent("a"), others=(busy,))

    assert isinstance(found, Wait)
    assert found.blocks
    assert "it needs cpu 4, mem 2 GiB" in found.reason
    assert "a has cpu 2, mem 20 GiB free" in found.reason


def test_processes_are_named_where_they_are_what_is_short() -> None:
    small = observed("a", capacity=Slots(8000, 32 << 30, 0, 5_000))
    found = planned(waiting(2), agent("a", small))

    assert isinstance(found, Wait)
    assert "it needs 2 x (cpu 1, mem 2 GiB, pids 4096)" in found.reason
    assert "a has cpu 8, mem 32 GiB, pids 5000 free" in found.reason


def test_slots_are_held_until_removed() -> None:
    ended = row("aaaaaaaa", S.EXITED, session=TWO)
    removed = row("aaaaaaaa", S.REMOVED, session=TWO)
    one = waiting(1)

    assert isinstance(planned(one, agent("a"), others=(ended,)), Wait)
    assert isinstance(planned(one, agent("a"), others=(removed,)), Placement)


@pytest.mark.parametrize(
    "fields", [{"seen_at": later(-16)}, {"connected": False}, {"lost": True}, {"cluster": "other"}]
)
def test_an_agent_that_is_not_well_gets_no_work(fields: dict[str, Any]) -> None:
    assert isinstance(planned(waiting(1), agent("a", **fields)), Wait)


def test_when_no_agent_is_ready_the_reason_says_how_each_is() -> None:
    assert Wait("no agent has joined this cluster yet", blocks=False) == planned(waiting(1))
    found = planned(waiting(1), agent("a", seen_at=later(-40)), agent("b", lost=True))
    assert isinstance(found, Wait)
    assert "no agent of this cluster is ready: a is unreachable, b is lost" == found.reason


def test_devices_that_are_held_are_not_given_twice() -> None:
    holder = with_kernel(
        row("a", S.RUNNING, session=TWO, resources=Resources(gpu=1)), 0, gpus=("gpu1",)
    )
    one = waiting(2, resources=Resources(gpu=1))
    record = agent("a", observed("a", gpus=3))
    found = planned(one, record, others=(holder,))

    assert isinstance(found, Placement)
    assert [("gpu0",), ("gpu2",)] == [seat.gpus for seat in found.seats]


def test_subnets_keep_clear_of_the_hosts_routes_and_of_live_sessions() -> None:
    alive = row("a", S.RUNNING, session=TWO)
    record = agent("a", observed("a", subnets=("10.213.128.0/17", "0.0.0.0/0", "nonsense")))
    found = planned(waiting(1), record, others=(alive,))

    assert isinstance(found, Placement)
    subnet = IPv4Network(found.network.subnet)
    assert not subnet.overlaps(IPv4Network("10.213.128.0/17"))
    assert not subnet.overlaps(IPv4Network("10.213.0.0/26"))


def test_a_route_over_the_whole_pool_is_named() -> None:
    found = planned(waiting(1), agent("a", observed("a", subnets=("10.0.0.0/8",))))

    assert isinstance(found, Wait)
    assert "a host's route to 10.0.0.0/8 covers all session networks" in found.reason


@settings(deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 200))
def test_every_gang_has_room_above_the_lower_quarter_of_its_subnet(size: int, hosts: int) -> None:
    length = address.prefix(size, min(size, hosts))
    subnet = IPv4Network((int(POOL.network_address), length))
    given_out = [IPv4Address(text) for text in address.addresses(subnet, size)]
    lower = IPv4Network((int(subnet.network_address), length + 2))

    assert size == len(set(given_out))
    assert subnet.broadcast_address not in given_out
    assert not any(one in lower for one in given_out)
    assert length <= 26
    assert min(size, hosts) + 2 <= lower.num_addresses


@settings(deadline=None)
@given(st.sets(st.integers(0, 15), max_size=16), st.text("abc", min_size=1))
def test_a_subnet_is_found_as_long_as_one_is_free(taken: set[int], name: str) -> None:
    pool = IPv4Network("10.213.0.0/22")
    subnets = list(pool.subnets(new_prefix=26))
    found = address.choose(pool, 26, [str(subnets[n]) for n in taken], SessionId(name), 1)

    if len(taken) == 16:
        assert found is None
    else:
        assert found in {subnet for n, subnet in enumerate(subnets) if n not in taken}


def test_the_queue_is_by_priority_and_then_by_arrival() -> None:
    rows = [
        with_session(waiting(1, session=SessionId(name * 12), priority=priority), created_at=at)
        for name, priority, at in (("a", 0, later(1)), ("b", 0, NOW), ("c", 5, later(9)))
    ]
    (line,) = queue.waiting(snapshot(rows), NOW).values()

    assert ["c", "b", "a"] == [one.session.id[0] for one in line]
    assert "waits its turn behind 2 sessions; the first is calm-otter-aa" == queue.behind(line[:2])


def test_models_are_matched_and_the_choosy_choose_first() -> None:
    room = place.Room(AgentId("a"), Slots(9, 9, 2, 9), (Gpu("g0", "h200"), Gpu("g1", "l4")))
    needs = (place.Need(Slots(1, 1, 1)), place.Need(Slots(1, 1, 1), "h200"))
    fit = place.gang(place.Request(needs, "auto", "pack"), [room])

    assert isinstance(fit, place.Fit)
    assert (("g1",), ("g0",)) == place.devices(needs, fit.agents, [room])


def test_removing_everything_gives_the_agent_back_whole() -> None:
    gone = row("aa", S.REMOVED, session=TWO)
    (room,) = place.rooms(snapshot([gone], [agent("a")]), agent("a").cluster, set(), NOW)

    assert room.free == replace(room, free=observed("a").capacity).free


def test_spreading_finds_a_cut_inside_a_role() -> None:
    main, worker = place.Need(Slots(4, 1, 0)), place.Need(Slots(1, 1, 1))
    hosts = (
        place.Room(AgentId("x"), Slots(4, 9, 0)),
        place.Room(AgentId("y"), Slots(7, 9, 3), tuple(Gpu(f"g{n}", "l4") for n in range(3))),
    )
    needs = (main, main, worker, worker, worker)

    assert place.Fit(("x", "y", "y", "y", "y")) == place.gang(  # type: ignore[arg-type]
        place.Request(needs, "multi-node", "spread"), hosts
    )
