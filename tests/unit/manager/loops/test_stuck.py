"""A session whose ranks have not found each other says so by itself, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from phalanx_manager.core.model import Stop, StopCause
from phalanx_manager.loops.stuck import AFTER_S, KIND, Stuck
from phalanx_wire.api import EventView
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.look import Look, Process
from phalanx_wire.mux import Stream
from phalanx_wire.stream import STDOUT
from tests.support.manager_api import Answer, Scene, scene


def telling(cores: float) -> Answer:
    """An agent whose containers use so much."""
    process = Process(7, 1, "python3 train.py", "S", 1, 1.0, 70.0, cores=cores)

    async def answer(stream: Stream) -> None:
        await stream.write(STDOUT, msgspec.msgpack.encode(Look((process,), ())))
        await stream.close()

    return answer


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path, telling(cores=0.0)) as made:
        yield made


async def turned(api: Scene, loop: Stuck | None = None) -> Stuck:
    """Let the loop, a new one if there is none, look around."""
    if loop is None:
        loop = Stuck(api.store, api.clock)
        loop.attach(api.link)
    loop.bell.ring()
    await loop.turn()
    return loop


async def said(api: Scene) -> list[EventView]:
    return [one for one in await api.store.events(0, None, 500) if one.kind == KIND]


async def test_after_a_minute_the_reason_is_told_once(api: Scene) -> None:
    row = await api.running()
    loop = await turned(api)
    early = await said(api)
    api.clock.passed_s += AFTER_S
    for _ in range(2):
        await turned(api, loop)

    (event,) = await said(api)
    assert [] == early
    assert (row.session.id, 0) == (event.session, event.rank)
    assert event.text.startswith(
        "its ranks do not work together yet, after 60 s: rank 0 does not listen at "
    )
    assert len(row.kernels) == len(api.link.calls)


async def test_a_manager_that_was_restarted_does_not_say_it_again(api: Scene) -> None:
    await api.running()
    api.clock.passed_s += AFTER_S
    await turned(api)
    await turned(api)

    assert 1 == len(await said(api))


async def test_another_attempt_is_looked_at_anew(api: Scene) -> None:
    row = await api.running(max_attempts=2)
    api.clock.passed_s += AFTER_S
    loop = await turned(api)
    await api.move(row.session.id, KernelState.EXITED, exit_code=1)
    api.clock.passed_s += 600
    (agent,) = await api.store.agents()
    assert agent.observed is not None
    await api.store.saw(agent.name, agent.observed, api.clock.now())
    await api.place(row.session.id)
    await api.move(row.session.id, KernelState.RUNNING)
    api.clock.passed_s += AFTER_S
    await turned(api, loop)

    assert 2 == len(await said(api))


async def test_who_computes_is_looked_at_once_and_nothing_is_said(api: Scene) -> None:
    api.link.answer = telling(cores=1.0)
    row = await api.running()
    api.clock.passed_s += AFTER_S
    loop = await turned(api)
    await turned(api, loop)

    assert [] == await said(api)
    assert len(row.kernels) == len(api.link.calls)


@pytest.mark.parametrize("fields", [{"size": 1}, {"kind": "interactive", "command": []}])
async def test_who_waits_for_nobody_is_not_looked_at(api: Scene, fields: Any) -> None:
    await api.running(**fields)
    api.clock.passed_s += AFTER_S
    await turned(api)

    assert [] == api.link.calls


async def test_what_has_run_for_long_is_left_alone_by_a_new_manager(api: Scene) -> None:
    await api.running()
    api.clock.passed_s += 10 * AFTER_S
    await turned(api)

    assert [] == api.link.calls


async def test_what_stops_is_not_looked_at(api: Scene) -> None:
    row = await api.running()
    api.clock.passed_s += AFTER_S
    await api.store.stop(row.session.id, Stop(StopCause.USER, "stopped", api.clock.now()))
    await turned(api)

    assert [] == api.link.calls
