"""What every store forgets, and what it does not."""

from __future__ import annotations

from dataclasses import replace

from phalanx_manager.core.model import Stop, StopCause
from phalanx_manager.core.observe import NetworkChange
from phalanx_manager.store.port import Created, NewEvent, NewSession
from phalanx_wire.ids import SessionId
from phalanx_wire.lifecycle import KernelState
from tests.support.house import NOW, admitted, later
from tests.support.store_case import ADA, ONE, ROOT, TWO, Case

S = KernelState
DAY_S = 86_400


async def over(case: Case) -> None:
    """A session that has run, ended, and left nothing."""
    await case.join()
    await case.submit(size=1, key="k1")
    await case.place()
    await case.move(0, S.PREPARING, S.REJECTED, S.REMOVED)
    network = (await case.row()).session.network
    assert network is not None
    gone = NetworkChange(ONE, 1, replace(network, released=True))
    await case.store.record((), (gone,), later(3))


async def test_what_ended_long_ago_is_forgotten_with_its_key_and_its_events(case: Case) -> None:
    await over(case)
    await case.submit(TWO, key="k2")
    too_early = await case.store.prune(NOW, 50)
    pruned = await case.store.prune(later(DAY_S), 50)
    nothing_more = await case.store.prune(later(DAY_S), 50)
    await case.again()
    again = NewSession(SessionId("cccccccccccc"), ADA, admitted(name="c"), NOW, "k1", "digest")

    assert 0 == too_early
    assert pruned > 1
    assert 0 == nothing_more
    assert await case.store.session(ONE, ROOT) is None
    assert {TWO} == set((await case.store.load()).sessions)
    assert Created(again.id) == await case.store.submit(again)


async def test_one_step_forgets_no_more_than_it_may(case: Case) -> None:
    await over(case)
    for number in range(10):
        await case.store.add_event(NewEvent(NOW, "note", f"{number}"))
    before = len(await case.store.events(0, None, 1000))
    pruned = await case.store.prune(later(DAY_S), 3)

    assert 4 == pruned
    assert before - 3 == len(await case.store.events(0, None, 1000))


async def test_what_has_ended_is_kept_while_something_of_it_is_left(case: Case) -> None:
    await case.join()
    await case.submit(size=1)
    await case.place()
    await case.store.stop(ONE, Stop(StopCause.USER, "enough", later(1)))
    await case.move(0, S.STOPPED)
    await case.store.prune(later(DAY_S), 50)

    assert "cancelled" == (await case.row()).session.state
