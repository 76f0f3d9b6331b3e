"""Sessions that ask from inside to be tried again, or stopped."""

from __future__ import annotations

import pytest

from phalanx_manager.core import goals
from phalanx_manager.core.model import SessionRow
from phalanx_manager.inside.ending import ANSWER_S
from phalanx_wire.lifecycle import KernelState
from tests.support.manager_api import Scene
from tests.unit.manager.inside.conftest import Said, ask, of


@pytest.mark.parametrize("rank", [0, 1])
async def test_a_session_asks_to_be_tried_again_and_is_when_it_has_stopped(
    api: Scene, row: SessionRow, rank: int
) -> None:
    said = await ask(api, of(row, rank), "phalanx", "requeue")
    stopping = await api.view("demo")
    await api.move(row.session.id, KernelState.STOPPED)
    view = await api.view("demo")

    assert Said(0, "session demo goes back to the queue as attempt 2\n", "", "") == said
    assert ("stopping", 1) == (stopping.state, stopping.attempt)
    assert ("pending", 2) == (view.state, view.attempt)
    host = row.kernels[rank].host_name
    assert (view.reason or "").startswith(f"attempt 2 after: requeued by itself, in {host}")


async def test_whoever_asks_hears_the_answer_before_anything_is_stopped(
    api: Scene, row: SessionRow
) -> None:
    await ask(api, of(row), "phalanx", "requeue")
    before, waiting = goals.timely(await api.store.load(), api.clock.now())
    api.clock.passed_s += ANSWER_S
    after, nothing = goals.timely(await api.store.load(), api.clock.now())

    assert {row.session.id: ANSWER_S} == waiting
    assert [KernelState.RUNNING] * 2 == wanted(before.sessions[row.session.id])
    assert ({}, [KernelState.STOPPED] * 2) == (nothing, wanted(after.sessions[row.session.id]))


def wanted(row: SessionRow) -> list[KernelState]:
    return [goals.goal(row, kernel, goals.barrier(row)) for kernel in row.kernels]


async def test_a_clock_that_was_set_back_delays_no_stop(api: Scene, row: SessionRow) -> None:
    await ask(api, of(row), "phalanx", "requeue")
    api.clock.passed_s -= 3600
    now, waiting = goals.timely(await api.store.load(), api.clock.now())

    assert ({}, [KernelState.STOPPED] * 2) == (waiting, wanted(now.sessions[row.session.id]))


async def test_asked_twice_it_is_tried_again_once(api: Scene, row: SessionRow) -> None:
    first = await ask(api, of(row), "scontrol", "requeue", str(row.session.number))
    second = await ask(api, of(row, 1), "scontrol", "requeue")
    await api.move(row.session.id, KernelState.STOPPED)

    assert [Said(0, "", "", "")] * 2 == [first, second]
    assert 2 == (await api.view("demo")).attempt


async def test_a_command_that_ends_well_after_it_has_asked_runs_again(
    api: Scene, row: SessionRow
) -> None:
    await ask(api, of(row), "phalanx", "requeue")
    await api.move(row.session.id, KernelState.EXITED, exit_code=0)
    view = await api.view("demo")

    assert ("pending", 2) == (view.state, view.attempt)


async def test_what_its_user_has_stopped_does_not_go_back(api: Scene, row: SessionRow) -> None:
    await api.post("/v1/sessions/demo/stop", {})
    said = await ask(api, of(row), "phalanx", "requeue")

    assert (1, "") == (said.code, said.out)
    assert "session demo does not go back to the queue: stopped by ada" in said.err


async def test_its_users_stop_is_stronger_than_its_own_wish(api: Scene, row: SessionRow) -> None:
    await ask(api, of(row), "phalanx", "requeue")
    await api.post("/v1/sessions/demo/stop", {})
    await api.move(row.session.id, KernelState.STOPPED)

    assert ("cancelled", 1) == ((v := await api.view("demo")).state, v.attempt)


async def test_a_stop_from_inside_is_the_end(api: Scene, row: SessionRow) -> None:
    said = await ask(api, of(row), "phalanx", "stop")
    await api.move(row.session.id, KernelState.STOPPED)
    view = await api.view("demo")

    assert Said(0, "session demo is stopped\n", "", "") == said
    assert ("cancelled", "stopped by itself, in main1") == (view.state, view.reason)
