from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from phalanx_manager.http import sessions
from phalanx_manager.http.doors import Rates
from phalanx_wire.api import DryRun, EnvView, LogLine, SessionList, SessionView
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Stream
from phalanx_wire.stream import SignalCall
from tests.support.manager_api import SMALL, SPEC, Scene, nothing, problem, scene, speaking


async def test_a_session_is_submitted_and_shown_in_full(api: Scene) -> None:
    view = await api.submit()
    assert ("demo", "batch", "pending", 1, None) == (
        view.name, view.kind, view.state, view.attempt, view.exit_code,
    )  # fmt: skip
    assert ["main1", "sub1"] == [kernel.host_name for kernel in view.kernels]
    assert [view.id] == api.changed
    assert view == await api.view("demo")
    assert view == await api.view(view.id)
    assert view == await api.view(view.id[:6])


async def test_a_created_session_says_where_it_is(api: Scene) -> None:
    response = await api.post("/v1/sessions", SPEC)
    view = msgspec.json.decode(await response.read(), type=SessionView)
    assert f"/v1/sessions/{view.id}" == response.headers["Location"]


async def test_the_same_key_and_body_give_the_same_session(api: Scene) -> None:
    first = await api.post("/v1/sessions", SPEC, **{"Idempotency-Key": "k1"})
    again = await api.post("/v1/sessions", SPEC, **{"Idempotency-Key": "k1"})
    assert (201, 200) == (first.status, again.status)
    assert await first.read() == await again.read()
    assert 1 == len(api.changed)


async def test_the_same_key_with_another_body_is_refused(api: Scene) -> None:
    await api.post("/v1/sessions", SPEC, **{"Idempotency-Key": "k1"})
    again = await api.post("/v1/sessions", SPEC | {"size": 3}, **{"Idempotency-Key": "k1"})
    assert "idempotency_mismatch" == (await problem(again)).code


async def test_a_live_name_is_taken_once_per_user(api: Scene) -> None:
    await api.submit()
    assert "name_taken" == (await problem(await api.post("/v1/sessions", SPEC))).code
    await api.submit("bob")


async def test_a_dry_run_says_where_it_would_go_and_writes_nothing(api: Scene) -> None:
    response = await api.post("/v1/sessions?dry_run=1", SPEC)
    preview = msgspec.json.decode(await response.read(), type=DryRun)
    assert (("gpu-1", "gpu-1"), None) == (preview.placement, preview.reason)
    assert 2 == preview.spec.size
    listing = await api.get("/v1/sessions")
    assert SessionList(()) == msgspec.json.decode(await listing.read(), type=SessionList)


async def test_lists_are_newest_first_and_only_the_callers_own(api: Scene) -> None:
    await api.submit(name="one")
    api.clock.passed_s = 1
    await api.submit(name="two")
    await api.submit("bob", name="three")

    async def names(user: str, query: str = "") -> set[str] | list[str]:
        response = await api.get(f"/v1/sessions{query}", user)
        found = msgspec.json.decode(await response.read(), type=SessionList)
        return [session.name for session in found.sessions]

    assert ["two", "one"] == await names("ada")
    assert {"one", "two", "three"} == set(await names("root"))
    assert ["two"] == await names("ada", "?limit=1")
    assert [] == await names("ada", "?state=running&state=failed")
    assert [] == await names("eve")


async def test_other_peoples_sessions_do_not_exist(api: Scene) -> None:
    view = await api.submit()
    for url in ("", "/env", "/wait", "/events", "/logs"):
        response = await api.get(f"/v1/sessions/{view.id}{url}", "bob")
        assert "not_found" == (await problem(response)).code
    response = await api.post(f"/v1/sessions/{view.id}/stop", {}, "bob")
    assert 404 == response.status
    assert 200 == (await api.get(f"/v1/sessions/{view.id}", "root")).status


async def test_a_waiting_session_is_cancelled_at_once_and_twice_is_the_same(api: Scene) -> None:
    view = await api.submit()
    for _time in range(2):
        response = await api.post("/v1/sessions/demo/stop", {"grace_s": 1})
        stopped = msgspec.json.decode(await response.read(), type=SessionView)
        assert ("cancelled", 200) == (stopped.state, response.status)
    assert [view.id, view.id] == api.changed


async def test_a_stop_needs_no_body(api: Scene) -> None:
    await api.submit()
    response = await api.client.post("/v1/sessions/demo/stop", headers=api.as_("ada"))
    assert 200 == response.status


async def test_the_environment_of_every_rank_is_shown(api: Scene) -> None:
    row = await api.running()
    response = await api.get("/v1/sessions/demo/env")
    view = msgspec.json.decode(await response.read(), type=EnvView)
    assert [0, 1] == [rank.rank for rank in view.ranks]
    values = {variable.name: variable.value for variable in view.ranks[1].variables}
    assert (row.session.id, "1") == (values["PHALANX_SESSION_ID"], values["RANK"])
    one = await api.get("/v1/sessions/demo/env?rank=1")
    assert [1] == [r.rank for r in msgspec.json.decode(await one.read(), type=EnvView).ranks]


async def test_environments_of_many_ranks_are_shown_in_parts_and_hold_nobody_up(
    api: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.running()
    monkeypatch.setattr(sessions, "MAX_ENV_CHARACTERS", 1)
    every, one = [await api.get(f"/v1/sessions/demo/env?rank={r}") for r in ("0-1", "1")]

    assert "too_many_ranks" == (await problem(every)).code
    assert 200 == one.status


# ---------------------------------------------------------------- waiting


async def test_a_wait_is_answered_as_soon_as_the_session_runs(api: Scene) -> None:
    row = await api.placed()
    waiting = asyncio.ensure_future(api.get("/v1/sessions/demo/wait?until=running&timeout_s=60"))
    for _turn in range(50):
        await asyncio.sleep(0)
    await api.move(row.session.id, KernelState.RUNNING)
    async with asyncio.timeout(5):
        view = msgspec.json.decode(await (await waiting).read(), type=SessionView)
    assert "running" == view.state


async def test_a_wait_whose_time_is_over_shows_the_session_as_it_is(api: Scene) -> None:
    await api.submit()
    async with asyncio.timeout(5):
        response = await api.get("/v1/sessions/demo/wait?timeout_s=0")
    assert "pending" == msgspec.json.decode(await response.read(), type=SessionView).state


# ---------------------------------------------------------------- signals


async def _take_signal(stream: Stream) -> None:
    assert isinstance(stream.call, SignalCall)
    if stream.call.signal == 12:
        await stream.close(code="not_running", why="it has just ended")
    else:
        await stream.close()


async def test_a_signal_goes_to_all_ranks_or_to_those_named(tmp_path: Path) -> None:
    async with scene(tmp_path, _take_signal) as api:
        row = await api.running()
        kernels = [kernel.id for kernel in row.kernels]
        response = await api.post("/v1/sessions/demo/signal", {"signal": "usr1"})
        assert 204 == response.status
        await api.post("/v1/sessions/demo/signal", {"signal": "15", "ranks": [1]})
        assert [
            SignalCall(kernels[0], 10), SignalCall(kernels[1], 10), SignalCall(kernels[1], 15),
        ] == api.link.calls  # fmt: skip
        late = await api.post("/v1/sessions/demo/signal", {"signal": "SIGUSR2"})
        assert "not_running" == (await problem(late)).code


async def test_a_signal_to_what_does_not_run_is_refused(api: Scene) -> None:
    await api.submit()
    response = await api.post("/v1/sessions/demo/signal", {"signal": "TERM"})
    assert "not_running" == (await problem(response)).code


async def test_who_signals_containers_that_only_wait_is_told_so(api: Scene) -> None:
    await api.running(kind="interactive", command=[])
    response = await api.post("/v1/sessions/demo/signal", {"signal": "TERM"})
    assert "not_running" == (await problem(response)).code
    assert [] == api.link.calls


async def test_a_signal_to_an_agent_that_is_away_is_unavailable(api: Scene) -> None:
    row = await api.running()
    assert row.kernels[0].agent is not None
    api.link.away.add(row.kernels[0].agent)
    response = await api.post("/v1/sessions/demo/signal", {"signal": "TERM"})
    assert "unavailable" == (await problem(response)).code


# ---------------------------------------------------------------- rates


async def test_who_asks_too_much_is_told_to_wait(tmp_path: Path) -> None:
    async with scene(tmp_path, nothing, Rates(per_s=10, burst=5)) as api:
        statuses = [(await api.get("/v1/sessions")).status for _time in range(7)]
        assert [200] * 5 + [429] * 2 == statuses
        assert 200 == (await api.get("/v1/sessions", "bob")).status
        api.clock.passed_s += 0.1
        assert 200 == (await api.get("/v1/sessions")).status


async def test_open_streams_are_bounded(tmp_path: Path) -> None:
    async with scene(tmp_path, nothing, Rates(streams=1)) as api:
        await api.submit()
        one = await api.get("/v1/sessions/demo/events", Accept="text/event-stream")
        two = await api.get("/v1/sessions/demo/events", Accept="text/event-stream")
        assert (200, 429, "1") == (one.status, two.status, two.headers["Retry-After"])
        one.close()


async def test_one_callers_streams_leave_room_for_others(tmp_path: Path) -> None:
    async with scene(tmp_path, nothing, Rates(everybodys_streams=4)) as api:
        await api.submit()
        await api.submit("bob", name="bobs")
        held = [
            await api.get(f"/v1/sessions/{ref}/events", user, Accept="text/event-stream")
            for ref, user in (("demo", "ada"),) * 3 + (("bobs", "bob"),) * 2
        ]
        assert [200, 200, 429, 200, 429] == [one.status for one in held]
        assert "more than half of the streams that others leave, 2" in (
            (await problem(held[2])).title
        )
        for one in held:
            one.close()


async def test_five_hundred_followers_of_one_session_are_served_and_one_more_is_not(
    tmp_path: Path,
) -> None:
    async with scene(
        tmp_path, speaking({0: [LogLine(1, False, "here")]}), Rates(streams=500)
    ) as api:
        await api.running(size=1)
        token = api.as_("ada")["Authorization"]
        ask = (
            "GET /v1/sessions/demo/logs?follow=1 HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: {token}\r\nAccept: text/event-stream\r\n\r\n"
        ).encode()
        lines = [
            await asyncio.open_connection(api.client.host, api.client.port) for _one in range(501)
        ]
        async with asyncio.timeout(30):
            for reader, writer in lines[:500]:
                writer.write(ask)
                assert b" 200 " in await reader.readline()
                await reader.readuntil(b'"here"')
            last, writer = lines[500]
            writer.write(ask)
            assert b" 429 " in await last.readline()
        for _reader, writer in lines:
            writer.close()


# ---------------------------------------------------------------- shape of it all


@pytest.mark.parametrize("user", ["ada", "root"])
async def test_small_sessions_fit_beside_each_other(api: Scene, user: str) -> None:
    for number in range(3):
        await api.submit(user, name=f"n{number}", resources=SMALL)
    assert 3 == len((await api.store.load()).sessions)
