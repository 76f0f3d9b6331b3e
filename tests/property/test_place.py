"""Placement, whatever the agents and the gang: never too much, whole or not at all, in blocks."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx_manager.core import place
from phalanx_manager.core.place import Fit, Need, NoFit, Request, Room
from phalanx_wire.control import Gpu
from phalanx_wire.ids import AgentId
from phalanx_wire.slots import Slots

MODELS = ("h200", "l4")

needs = st.builds(
    lambda cpu, mem, gpu, model: Need(Slots(cpu, mem, gpu, 1), model if gpu else ""),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 2),
    st.sampled_from(("", *MODELS)),
)


@st.composite
def rooms(draw: st.DrawFn) -> tuple[Room, ...]:
    offered: list[Room] = []
    for number in range(draw(st.integers(1, 5))):
        models = draw(st.lists(st.sampled_from(MODELS), max_size=4))
        gpus = tuple(Gpu(f"gpu{at}", model) for at, model in enumerate(models))
        free = Slots(draw(st.integers(0, 12)), draw(st.integers(0, 12)), len(gpus), 100)
        offered.append(Room(AgentId(f"agent{number}"), free, gpus))
    return tuple(offered)


gangs = st.one_of(
    st.lists(needs, min_size=1, max_size=6),
    st.builds(lambda need, size: [need] * size, needs, st.integers(1, 8)),
)
requests = st.builds(
    lambda gang, mode, spread: Request(tuple(gang), mode, spread),
    gangs,
    st.sampled_from(("auto", "single-node", "multi-node")),
    st.sampled_from(("pack", "spread", "one-per-node")),
)


def blocks(agents: tuple[AgentId, ...]) -> list[tuple[AgentId, int]]:
    return [(agent, len(list(run))) for agent, run in itertools.groupby(agents)]


@settings(max_examples=400, deadline=None)
@given(requests, rooms())
def test_a_fit_is_whole_fits_is_contiguous_and_keeps_to_mode_and_spread(
    request: Request, offered: tuple[Room, ...]
) -> None:
    outcome = place.gang(request, offered)
    if isinstance(outcome, NoFit):
        assert outcome.reason
        return
    agents = outcome.agents

    assert len(request.needs) == len(agents)
    runs = blocks(agents)
    assert len(runs) == len({agent for agent, _ in runs})
    for room in offered:
        mine = [
            need for need, agent in zip(request.needs, agents, strict=True) if agent == room.agent
        ]
        total = sum((need.slots for need in mine), Slots())
        assert total.fits(room.free)
    if request.mode == "single-node":
        assert 1 == len(runs)
    if request.spread == "one-per-node" and request.mode != "single-node":
        assert len(request.needs) == len(runs)


@settings(max_examples=300, deadline=None)
@given(requests, rooms())
def test_every_kernel_gets_devices_of_its_own_of_the_model_it_wants(
    request: Request, offered: tuple[Room, ...]
) -> None:
    outcome = place.gang(request, offered)
    if isinstance(outcome, NoFit):
        return
    chosen = place.devices(request.needs, outcome.agents, offered)
    models = {(room.agent, gpu.id): gpu.model for room in offered for gpu in room.gpus}
    held = Counter(
        (agent, gpu) for agent, gpus in zip(outcome.agents, chosen, strict=True) for gpu in gpus
    )

    assert all(count == 1 for count in held.values())
    for need, agent, gpus in zip(request.needs, outcome.agents, chosen, strict=True):
        assert need.slots.gpu == len(gpus)
        if need.gpu_model:
            assert {need.gpu_model} >= {models[agent, gpu] for gpu in gpus}


@settings(max_examples=200, deadline=None)
@given(requests, rooms())
def test_a_certain_refusal_is_one_no_try_of_all_placements_contradicts(
    request: Request, offered: tuple[Room, ...]
) -> None:
    outcome = place.gang(request, offered)
    if isinstance(outcome, Fit) or not outcome.certain or len(request.needs) > 5:
        return
    assert not any(possible(request, offered, agents) for agents in every(request, offered))


def every(request: Request, offered: tuple[Room, ...]) -> list[tuple[AgentId, ...]]:
    size = len(request.needs)
    found: list[tuple[AgentId, ...]] = []
    for count in range(1, min(size, len(offered)) + 1):
        for chosen in itertools.permutations([room.agent for room in offered], count):
            for cuts in itertools.combinations(range(1, size), count - 1):
                bounds = (0, *cuts, size)
                lengths = [after - before for before, after in itertools.pairwise(bounds)]
                found.append(
                    tuple(
                        agent
                        for agent, length in zip(chosen, lengths, strict=True)
                        for _ in range(length)
                    )
                )
    return found


def possible(request: Request, offered: tuple[Room, ...], agents: tuple[AgentId, ...]) -> bool:
    if request.mode == "single-node" and len(set(agents)) > 1:
        return False
    strict = request.spread == "one-per-node" and request.mode != "single-node"
    if strict and len(set(agents)) < len(agents):
        return False
    for room in offered:
        mine = [
            need for need, agent in zip(request.needs, agents, strict=True) if agent == room.agent
        ]
        have = Counter(gpu.model for gpu in room.gpus)
        wanted = Counter[str]()
        for need in mine:
            if need.gpu_model:
                wanted[need.gpu_model] += need.slots.gpu
        total = sum((need.slots for need in mine), Slots())
        if not total.fits(room.free) or any(wanted[model] > have[model] for model in wanted):
            return False
    return True


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6))
def test_spreading_on_equal_agents_is_even_and_uses_no_agent_in_vain(size: int, hosts: int) -> None:
    one = Need(Slots(1, 1, 0, 1))
    offered = tuple(Room(AgentId(f"agent{n}"), Slots(99, 99, 0, 99)) for n in range(hosts))
    outcome = place.gang(Request((one,) * size, "multi-node", "spread"), offered)

    assert isinstance(outcome, Fit)
    lengths = [length for _, length in blocks(outcome.agents)]
    most = -(-size // hosts)
    assert most == max(lengths)
    assert max(lengths) - min(lengths) <= 1
    assert -(-size // most) == len(lengths)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_packing_equal_kernels_uses_the_fewest_agents(size: int, capacities: list[int]) -> None:
    one = Need(Slots(1, 0, 0, 0))
    offered = tuple(
        Room(AgentId(f"agent{n}"), Slots(room, 0, 0, 0)) for n, room in enumerate(capacities)
    )
    outcome = place.gang(Request((one,) * size, "auto", "pack"), offered)
    fewest, left = 0, size
    for room in sorted(capacities, reverse=True):
        if left <= 0:
            break
        fewest, left = fewest + 1, left - room

    if left > 0:
        assert isinstance(outcome, NoFit)
    else:
        assert isinstance(outcome, Fit)
        assert fewest == len(blocks(outcome.agents))
