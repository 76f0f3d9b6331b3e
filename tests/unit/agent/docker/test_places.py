"""Places that are lent, and taken away again."""

from __future__ import annotations

import asyncio

import pytest

from phalanx_agent.docker import places
from phalanx_agent.docker.places import Place, Places


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "REST_S", 0.02)
    monkeypatch.setattr(places, "HOLD_S", 0.1)
    monkeypatch.setattr(places, "_LOOK_S", 0.001)


async def idle(lent: Places, name: str, given_up: list[str]) -> Place:
    """Take a place, and do nothing in it until it is lost."""
    async with lent.of(name) as place:
        gone = asyncio.Event()

        def give_up() -> None:
            given_up.append(name)
            gone.set()

        with place.resting(give_up):
            await gone.wait()
    return place


async def test_who_rests_loses_its_place_when_another_wants_one() -> None:
    lent, given_up = Places(2), list[str]()
    resting = [asyncio.ensure_future(idle(lent, name, given_up)) for name in "ab"]
    async with asyncio.timeout(5):
        async with lent.of("c") as place:
            assert not place.lost
            (first,) = (await asyncio.wait(resting, return_when="FIRST_COMPLETED"))[0]
            assert first.result().lost
        assert 1 == len(given_up)
        async with lent.of("d"):
            assert 1 == len(given_up)
    for task in resting:
        task.cancel()
    await asyncio.gather(*resting, return_exceptions=True)


async def test_who_rests_keeps_its_place_while_nobody_wants_it() -> None:
    lent, given_up = Places(2), list[str]()
    resting = asyncio.ensure_future(idle(lent, "a", given_up))
    async with asyncio.timeout(5), lent.of("b"):
        await asyncio.sleep(0.1)

    assert [] == given_up
    resting.cancel()
    await asyncio.gather(resting, return_exceptions=True)


async def test_who_works_without_end_loses_its_place_after_a_while() -> None:
    lent = Places(1)

    async def work() -> Place:
        async with lent.of("a") as place:
            while not place.lost:
                with place.resting(lambda: None):
                    await asyncio.sleep(0)
        return place

    working = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    async with asyncio.timeout(5), lent.of("b"):
        assert (await working).lost


async def test_those_of_a_name_let_each_other_work_to_the_end() -> None:
    lent = Places(1)
    order: list[str] = []

    async def work(name: str, steps: int) -> None:
        async with lent.of("a") as place:
            for _ in range(steps):
                with place.resting(lambda: order.append("lost")):
                    await asyncio.sleep(0.005)
            order.append(name)

    async with asyncio.timeout(5):
        await asyncio.gather(work("first", 50), work("second", 1))

    assert ["first", "second"] == order


async def test_nobody_loses_a_place_to_one_whose_name_may_have_no_more() -> None:
    lent, given_up = Places(8), list[str]()
    async with asyncio.timeout(5), lent.of("x"):
        resting = [asyncio.ensure_future(idle(lent, name, given_up)) for name in "abcdefg"]
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(lent.of("x").__aenter__())
        await asyncio.sleep(0.1)

        assert [] == given_up
        assert not waiting.done()
        for task in (waiting, *resting):
            task.cancel()
        await asyncio.gather(waiting, *resting, return_exceptions=True)


async def test_nobody_loses_a_place_that_has_not_come_to_anything() -> None:
    lent = Places(1)
    async with lent.of("a") as place:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), lent.of("b"):
                pass
        assert not place.lost
    async with asyncio.timeout(5), lent.of("c"):
        pass


async def test_who_comes_finds_a_place_however_many_of_a_name_wait_for_one() -> None:
    lent, given_up = Places(4), list[str]()
    greedy = [asyncio.ensure_future(idle(lent, "a", given_up)) for _one in range(20)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5), lent.of("b") as place:
        assert not place.lost
        assert [] == given_up
    for task in greedy:
        task.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)


async def test_a_place_comes_back_from_whoever_is_cut_off() -> None:
    lent, given_up = Places(1), list[str]()
    resting = asyncio.ensure_future(idle(lent, "a", given_up))
    await asyncio.sleep(0)
    resting.cancel()
    async with asyncio.timeout(5), lent.of("b"):
        assert [] == given_up
