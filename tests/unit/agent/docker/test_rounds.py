"""Who is next where many wait."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from phalanx_agent.docker.rounds import Rounds

TURNS = 50


async def settle() -> None:
    for _turn in range(TURNS):
        await asyncio.sleep(0)


class Desk:
    """Notes who came in, and lets out one after the other."""

    def __init__(self, places: int = 1) -> None:
        self.rounds = Rounds(places)
        self.served: list[str] = []
        self.inside = self.most = 0

    async def visit(self, name: str, stay: asyncio.Event | None = None) -> None:
        async with self.rounds.of(name):
            self.served.append(name)
            self.inside += 1
            self.most = max(self.most, self.inside)
            await (asyncio.sleep(0) if stay is None else stay.wait())
            self.inside -= 1


async def test_one_of_another_name_waits_for_one_of_a_thousand() -> None:
    desk = Desk()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(1000):
            tasks.create_task(desk.visit("greedy"))
        await asyncio.sleep(0)
        tasks.create_task(desk.visit("modest"))
        tasks.create_task(desk.visit("third"))

    assert desk.served.index("modest") <= 3
    assert desk.served.index("third") <= 4
    assert 1000 == desk.served.count("greedy")
    assert 1 == desk.most


async def test_so_many_are_inside_as_there_are_places() -> None:
    desk = Desk(places=4)
    async with asyncio.TaskGroup() as tasks:
        for name in "abcd" * 15:
            tasks.create_task(desk.visit(name))

    assert 4 == desk.most
    assert 60 == len(desk.served)


async def test_all_that_may_come_in_do_when_one_has_left() -> None:
    desk = Desk(places=4)
    stay, leave = asyncio.Event(), asyncio.Event()
    staying = [asyncio.ensure_future(desk.visit("a", stay))]
    await settle()
    leaving = asyncio.ensure_future(desk.visit("b", leave))
    await settle()
    staying += [asyncio.ensure_future(desk.visit(name, stay)) for name in "ab"]
    await settle()
    before = list(desk.served)
    leave.set()
    await leaving
    await settle()

    assert ["a", "b"] == before
    assert ["a", "b", "a", "b"] == desk.served
    stay.set()
    await asyncio.gather(*staying)


async def test_one_name_has_half_and_each_that_comes_half_of_what_is_left() -> None:
    desk, stay = Desk(places=16), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for name in "abcde":
            for _one in range(20):
                tasks.create_task(desk.visit(name, stay))
            await settle()
        assert {"a": 8, "b": 4, "c": 2, "d": 1, "e": 1} == Counter(desk.served)
        stay.set()

    assert 100 == len(desk.served)


async def test_who_leaves_before_its_turn_is_passed_over() -> None:
    desk, stay = Desk(), asyncio.Event()
    first, second, third = (asyncio.ensure_future(desk.visit(name, stay)) for name in "abc")
    await settle()
    second.cancel()
    stay.set()
    await asyncio.gather(first, third)

    assert ["a", "c"] == desk.served
    assert second.cancelled()


@pytest.mark.parametrize("turns", range(4))
async def test_who_leaves_at_any_moment_gives_its_place_to_the_next(turns: int) -> None:
    desk, stay = Desk(), asyncio.Event()
    first = asyncio.ensure_future(desk.visit("a", stay))
    await settle()
    second = asyncio.ensure_future(desk.visit("b"))
    third = asyncio.ensure_future(desk.visit("c"))
    await settle()
    stay.set()
    for _turn in range(turns):
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, third)
    await desk.visit("d")

    assert ["c", "d"] == desk.served[-2:]


async def test_a_place_comes_back_from_whoever_is_cut_off_in_it() -> None:
    desk, never = Desk(), asyncio.Event()
    first = asyncio.ensure_future(desk.visit("a", never))
    second = asyncio.ensure_future(desk.visit("b"))
    await settle()
    first.cancel()
    await second

    assert ["a", "b"] == desk.served
