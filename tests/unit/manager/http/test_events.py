"""Timelines of sessions: as streams, and as lists."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import ClientResponse

from phalanx_wire.api import EventView
from phalanx_wire.lifecycle import KernelState
from tests.support.manager_api import Scene, sse, turns

STREAM = {"Accept": "text/event-stream"}


async def read_events(response: ClientResponse) -> list[EventView]:
    async with asyncio.timeout(10):
        found = [event async for event in sse(response)]
    assert ("end", "{}") == found[-1][1:]
    events = [msgspec.json.decode(data, type=EventView) for _id, _name, data in found[:-1]]
    assert [event_id for event_id, _name, _data in found[:-1]] == [str(e.id) for e in events]
    return events


async def test_a_timeline_is_told_until_the_session_has_ended(api: Scene) -> None:
    row = await api.running()
    response = await api.get("/v1/sessions/demo/events", **STREAM)
    reading = asyncio.ensure_future(read_events(response))
    await turns()
    assert not reading.done()
    await api.move(row.session.id, KernelState.EXITED, exit_code=0)
    kinds = [event.kind for event in await reading]
    assert ("session.submitted", "session.succeeded") == (kinds[0], kinds[-1])


async def test_a_timeline_resumes_after_the_last_event_that_came(api: Scene) -> None:
    row = await api.running()
    await api.move(row.session.id, KernelState.EXITED, exit_code=0)
    whole = await read_events(await api.get("/v1/sessions/demo/events", **STREAM))
    for cut, event in enumerate(whole):
        header = {"Last-Event-ID": str(event.id)}
        rest = await read_events(await api.get("/v1/sessions/demo/events", **STREAM, **header))
        assert whole[cut + 1 :] == rest
        same = await read_events(
            await api.get(f"/v1/sessions/demo/events?after={event.id}", **STREAM)
        )
        assert rest == same


async def test_a_timeline_that_was_put_back_to_an_older_state_is_followed_from_there(
    api: Scene,
) -> None:
    row = await api.running()
    before = await read_events(await api.get("/v1/sessions/demo/events?follow=0", **STREAM))
    header = {"Last-Event-ID": str(before[-1].id + 1000)}
    response = await api.get("/v1/sessions/demo/events", **STREAM, **header)
    await api.move(row.session.id, KernelState.EXITED, exit_code=0)
    rest = await read_events(response)

    assert "session.succeeded" == rest[-1].kind
    assert before[-1].id < rest[0].id < before[-1].id + 1000


async def test_a_timeline_is_a_list_for_who_asks_for_no_stream(api: Scene) -> None:
    await api.running()
    response = await api.get("/v1/sessions/demo/events")
    found = msgspec.json.decode(await response.read(), type=list[EventView])
    limited = await api.get("/v1/sessions/demo/events?limit=2")
    assert found[:2] == msgspec.json.decode(await limited.read(), type=list[EventView])


async def test_a_stream_that_does_not_follow_ends_at_once(api: Scene) -> None:
    await api.running()
    found = await read_events(await api.get("/v1/sessions/demo/events?follow=0", **STREAM))
    assert "session.submitted" == found[0].kind


async def test_everybody_hears_of_their_own_sessions_and_an_admin_of_all(api: Scene) -> None:
    await api.running("ada")
    await api.submit("bob", name="other")

    async def sessions(user: str) -> set[object]:
        response = await api.get("/v1/events?follow=0", user, **STREAM)
        return {event.session for event in await read_events(response)}

    ada, bob, root = [await sessions(user) for user in ("ada", "bob", "root")]
    assert (1, 1, set()) == (len(ada), len(bob), ada & bob)
    assert ada | bob | {None} == root
    assert set() == await sessions("eve")
