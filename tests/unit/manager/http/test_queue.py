"""Sessions and the queue: back to it, held in it, behind others, and given more time."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiohttp import ClientResponse

from phalanx_wire.api import SessionView
from phalanx_wire.lifecycle import KernelState
from tests.support.manager_api import SPEC, Scene, problem


async def view(response: ClientResponse) -> SessionView:
    assert 200 == response.status, await response.text()
    return msgspec.json.decode(await response.read(), type=SessionView)


async def test_a_running_session_is_requeued_by_stopping_it_first(api: Scene) -> None:
    row = await api.running()
    response = await api.post("/v1/sessions/demo/requeue", b"")
    stopping = msgspec.json.decode(await response.read(), type=SessionView)
    await api.move(row.session.id, KernelState.STOPPED)
    view = await api.view("demo")
    assert ("stopping", 1) == (stopping.state, stopping.attempt)
    assert ("pending", 2) == (view.state, view.attempt)
    assert view.reason is not None
    assert view.reason.startswith("attempt 2 after: requeued by ada")


async def test_what_waits_in_the_queue_stays_there_when_it_is_requeued(api: Scene) -> None:
    await api.submit()
    response = await api.post("/v1/sessions/demo/requeue", b"")
    view = msgspec.json.decode(await response.read(), type=SessionView)
    assert ("pending", 1) == (view.state, view.attempt)


async def test_what_has_ended_is_not_requeued(api: Scene) -> None:
    await api.submit()
    await api.post("/v1/sessions/demo/stop", {})
    found = await problem(await api.post("/v1/sessions/demo/requeue", b""))
    assert ("ended", 409) == (found.code, found.status)


async def test_a_wait_for_the_end_goes_on_over_attempts(api: Scene) -> None:
    row = await api.running(max_attempts=2)
    waiting = asyncio.ensure_future(api.get("/v1/sessions/demo/wait?timeout_s=60"))
    await api.move(row.session.id, KernelState.EXITED, exit_code=3)
    await asyncio.sleep(0)
    between = await api.view("demo")
    await api.post("/v1/sessions/demo/stop", {})
    view = msgspec.json.decode(await (await waiting).read(), type=SessionView)
    assert ("pending", 2) == (between.state, between.attempt)
    assert ("cancelled", 2) == (view.state, view.attempt)


async def test_a_held_session_says_so_until_it_is_released(api: Scene) -> None:
    await api.submit()
    held = await view(await api.post("/v1/sessions/demo/hold", b""))
    again = await view(await api.post("/v1/sessions/demo/hold", b""))
    released = await view(await api.post("/v1/sessions/demo/release", b""))
    assert "it is held; to let it go: phalanx release demo" == held.reason
    assert (held, None) == (again, released.reason)


@pytest.mark.parametrize("verb", ["hold", "release"])
async def test_what_does_not_wait_is_neither_held_nor_released(api: Scene, verb: str) -> None:
    await api.running()
    found = await problem(await api.post(f"/v1/sessions/demo/{verb}", b""))
    assert ("not_pending", 409) == (found.code, found.status)


async def test_a_time_limit_is_extended_and_told(api: Scene) -> None:
    row = await api.running(time_limit_s=600)
    await view(await api.post("/v1/sessions/demo/extend", {"seconds": 60}))
    await view(await api.post("/v1/sessions/demo/extend", {"seconds": 60}))
    events = await api.store.events(0, row.session.id, 100)
    assert 720.0 == (await api.row(row.session.id)).session.time_limit_s
    assert events[-1].text.startswith("ada has added 60 s to its time limit, which ends at ")


@pytest.mark.parametrize(
    ("limit_s", "seconds", "code"),
    [(None, 60, "no_time_limit"), (600, 0, "invalid_field"), (600, 1e12, "invalid_field")],
)
async def test_a_wrong_extension_is_refused(
    api: Scene, limit_s: float | None, seconds: float, code: str
) -> None:
    await api.running(time_limit_s=limit_s)
    found = await problem(await api.post("/v1/sessions/demo/extend", {"seconds": seconds}))
    assert code == found.code


async def test_what_is_being_stopped_gets_no_more_time(api: Scene) -> None:
    await api.running(time_limit_s=600)
    await api.post("/v1/sessions/demo/stop", {})
    found = await problem(await api.post("/v1/sessions/demo/extend", {"seconds": 60}))
    assert "ended" == found.code


async def test_sessions_to_wait_for_are_kept_by_their_ids(api: Scene) -> None:
    first = await api.submit()
    second = await api.submit(name="next", after="afterok:demo,afterany:demo")
    assert f"afterok:{first.id},afterany:{first.id}" == second.spec.after


async def test_a_session_that_is_not_there_cannot_be_waited_for(api: Scene) -> None:
    await api.submit("bob", name="bobs")
    for ref in ("nobody", "bobs"):
        found = await problem(await api.post("/v1/sessions", SPEC | {"after": f"afterok:{ref}"}))
        assert ("after_unknown", "after") == (found.code, found.field)
