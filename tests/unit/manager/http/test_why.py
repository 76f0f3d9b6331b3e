"""Why a session is as it is, asked of agents that answer, lie, or stay silent."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from phalanx_manager.core import why as whys
from phalanx_manager.rpc import looks
from phalanx_manager.store.port import NewEvent
from phalanx_wire.api import EventView, WhyView
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.look import MAX_BYTES, Look, Process, Reach, Socket
from phalanx_wire.mux import Stream
from phalanx_wire.stream import STDOUT, LookCall
from tests.support.manager_api import Scene, problem, scene, speaking, sse

WORKING = Process(7, 1, "python3 train.py", "R", 1, 12.0, 70.0, cores=1.0)


async def why(api: Scene, user: str = "ada") -> WhyView:
    response = await api.get("/v1/sessions/demo/why", user)
    assert 200 == response.status, await response.text()
    return msgspec.json.decode(await response.read(), type=WhyView)


def codes(view: WhyView) -> list[str]:
    return [one.code for one in view.findings]


async def busy(stream: Stream) -> None:
    """An agent whose containers all compute."""
    assert isinstance(stream.call, LookCall)
    await stream.write(STDOUT, msgspec.msgpack.encode(Look((WORKING,), (), (Reach(0, "open"),))))
    await stream.close()


async def test_what_waits_is_told_without_asking_any_agent(api: Scene) -> None:
    await api.submit()
    view = await why(api)

    assert ("demo", "pending", ["pending"], ()) == (
        view.name, view.state, codes(view), view.missing
    )  # fmt: skip
    assert [] == api.link.calls


async def test_all_ranks_that_run_are_looked_at(api: Scene) -> None:
    row = await api.running()
    api.link.answer = busy
    view = await why(api)

    assert ["busy"] == codes(view)
    assert {kernel.id for kernel in row.kernels} == {
        call.kernel for call in api.link.calls if isinstance(call, LookCall)
    }


async def test_of_a_large_session_rank_0_says_who_is_looked_at_besides(
    api: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await api.running(size=4)
    met = tuple(
        Socket("connected", row.kernels[0].address, 12345, row.kernels[rank].address, 50000, pid=7)
        for rank in (1, 3)
    )

    async def main_tells(stream: Stream) -> None:
        assert isinstance(stream.call, LookCall)
        sockets = met if stream.call.kernel == row.kernels[0].id else ()
        await stream.write(STDOUT, msgspec.msgpack.encode(Look((WORKING,), sockets)))
        await stream.close()

    monkeypatch.setattr(whys, "MAX_LOOKS", 2)
    api.link.answer = main_tells
    view = await why(api)

    assert [row.kernels[0].id, row.kernels[2].id] == [
        call.kernel for call in api.link.calls if isinstance(call, LookCall)
    ]
    assert "2 of 4 ranks were not looked at" in view.findings[-1].text


async def test_who_may_only_read_may_ask_for_what_is_theirs(api: Scene) -> None:
    await api.submit()
    found = await problem(await api.get("/v1/sessions/demo/why", "bob"))

    assert ("not_found", 404) == (found.code, found.status)
    assert ["pending"] == codes(await why(api, "root"))


async def test_an_agent_that_is_away_is_told(api: Scene) -> None:
    await api.running()
    api.link.away.add(AgentId("gpu-1"))
    view = await why(api)

    assert ("not-seen", (0, 1)) == (view.findings[-1].code, view.missing)


async def test_an_agent_that_never_answers_does_not_hold_the_answer_up(
    api: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mute(stream: Stream) -> None:
        await stream.ended()

    monkeypatch.setattr(looks, "PATIENCE_S", 0.05)
    await api.running()
    api.link.answer = mute
    began = time.monotonic()
    view = await why(api)

    assert time.monotonic() - began < 1.0
    assert (0, 1) == view.missing
    assert "did not answer within 0.05 s" in view.findings[-1].text


@pytest.mark.parametrize(
    "said",
    [b"", b"\x93", msgspec.msgpack.encode({"processes": "all"}), b"\x91" * 5000],
    ids=["nothing", "half", "another-shape", "deep"],
)
async def test_an_agent_that_tells_nonsense_is_told(api: Scene, said: bytes) -> None:
    async def nonsense(stream: Stream) -> None:
        await stream.write(STDOUT, said)
        await stream.close()

    await api.running()
    api.link.answer = nonsense
    view = await why(api)

    assert (0, 1) == view.missing
    assert "makes no sense" in view.findings[-1].text


async def test_an_agent_that_tells_too_much_is_cut_short(api: Scene) -> None:
    async def flood(stream: Stream) -> None:
        while True:
            await stream.write(STDOUT, b"x" * (MAX_BYTES // 4))

    await api.running()
    api.link.answer = flood
    view = await why(api)

    assert "told more than" in view.findings[-1].text


async def test_an_agent_that_refuses_is_quoted(api: Scene) -> None:
    await api.running()
    view = await why(api)

    assert "nothing is served here" in view.findings[-1].text


async def test_who_follows_the_output_is_told_that_nothing_will_come(tmp_path: Path) -> None:
    over = asyncio.Event()

    async def until_over() -> None:
        await over.wait()

    async with scene(tmp_path, speaking({}, until_over)) as api:
        row = await api.running()
        told: list[EventView] = []
        response = await api.get("/v1/sessions/demo/logs?follow=1")
        for kind in ("session.held", "session.stuck"):
            event = NewEvent(api.clock.now(), kind, "rank 0 does not listen", row.session.id, 0)
            await api.store.add_event(event)
        async with asyncio.timeout(10):
            async for _id, name, data in sse(response):
                if name == "event":
                    told.append(msgspec.json.decode(data, type=EventView))
                    over.set()
                    await api.move(row.session.id, KernelState.EXITED, exit_code=0)

    assert [("session.stuck", "rank 0 does not listen")] == [(one.kind, one.text) for one in told]


async def test_who_reads_what_was_said_so_far_is_told_too_until_it_is_over(tmp_path: Path) -> None:
    async with scene(tmp_path, speaking({})) as api:
        row = await api.running()
        event = NewEvent(api.clock.now(), "session.stuck", "nobody listens", row.session.id)
        await api.store.add_event(event)
        lives = await heard(api)
        await api.move(row.session.id, KernelState.EXITED, exit_code=0)
        over = await heard(api)

    assert (["event", "end"], ["end"]) == (lives, over)


async def heard(api: Scene) -> list[str]:
    """What is sent to who reads the output."""
    response = await api.get("/v1/sessions/demo/logs")
    return [name async for _id, name, _data in sse(response)]


async def test_what_a_short_session_was_told_is_not_lost_with_its_end(tmp_path: Path) -> None:
    async with scene(tmp_path, speaking({})) as api:
        row = await api.running()
        event = NewEvent(api.clock.now(), "session.unshared", "not shared", row.session.id)
        await api.store.add_event(event)
        await api.move(row.session.id, KernelState.EXITED, exit_code=0)
        response = await api.get("/v1/sessions/demo/logs?follow=1")
        async with asyncio.timeout(10):
            kinds = [name async for _id, name, _data in sse(response)]

    assert ["event", "end"] == kinds
