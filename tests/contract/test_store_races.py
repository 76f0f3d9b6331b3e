"""What happens to a change while another one, or its own asker's end, is on the way."""

from __future__ import annotations

import asyncio

import pytest

from phalanx_manager.core.model import Drain
from phalanx_manager.store.port import Joined, NewEvent, TokenRow
from phalanx_manager.store.tables import Refused
from phalanx_wire.ids import AgentId
from tests.support.house import CLUSTER, NOW, later, observed
from tests.support.store_case import ONE, A, Case

PATIENCE_S = 10.0


async def test_an_agent_that_reports_as_it_is_forgotten_stops_nothing(case: Case) -> None:
    await case.join()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(case.store.forget(A, "forgotten", later(1)))
        for cpu in range(1, 40):  # some of these come between the commit and what follows it
            await asyncio.sleep(0)
            tasks.create_task(case.store.saw(A, observed("a", cpu=cpu), later(cpu)))
            tasks.create_task(case.store.drain(A, Drain("x", NOW), "drained", later(cpu)))
    await case.submit()

    assert () == await case.store.agents()
    assert () == await (await case.again()).agents()


async def test_an_agent_whose_join_was_cut_off_is_let_in_when_it_asks_again(case: Case) -> None:
    for turns in (0, 1, 2, 3, 4, 6, 10, 20, 40, 80, 160, 320, 640):
        # Turns of the event loop: it is cut off before its commit, within, and after it.
        name, key = AgentId(f"a{turns}"), f"k{turns}"
        token = TokenRow(key, "agent", "", "user", CLUSTER, NOW, None, public_key=key)
        await case.store.add_token(token)
        asking = asyncio.ensure_future(case.store.use_agent_token(key, name, f"own{key}", later(1)))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        async with asyncio.timeout(PATIENCE_S):
            joined = await case.store.use_agent_token(key, name, f"own{key}", later(2))
        assert isinstance(joined, Joined)
    before = await case.store.agents()

    assert 13 == len(before)
    assert before == await (await case.again()).agents()


@pytest.mark.parametrize(
    "odd", [NewEvent(NOW, "odd", "\ud800", ONE), NewEvent(NOW, "odd", "odd", ONE, rank=1 << 63)]
)
async def test_a_value_that_no_column_holds_is_refused_alone(case: Case, odd: NewEvent) -> None:
    await case.submit()
    async with asyncio.timeout(PATIENCE_S):
        well, ill, well_too = await asyncio.gather(
            case.store.hold(ONE, "held", later(1), held=True),
            case.store.add_event(odd),
            case.store.add_event(NewEvent(NOW, "fine", "fine", ONE)),
            return_exceptions=True,
        )
    events = [event.kind for event in await case.store.events(0, ONE, 100)]

    assert (True, None) == (well, well_too)
    assert isinstance(ill, Refused)
    assert "fine" in events
    assert "odd" not in events
