"""What a manager answers while it stands by, and what ends when it does not lead any more."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.support.manager_api import PATIENCE_S, Scene, problem


async def test_who_stands_by_names_who_leads(api: Scene) -> None:
    api.entrance.close()
    api.entrance.leader, api.entrance.why = "http://other:7910", "this manager stands by: x leads"
    found = await problem(await api.get("/v1/sessions"))

    assert ("not_leader", 503) == (found.code, found.status)
    assert "this manager stands by: x leads" == found.title
    assert "ask the one at http://other:7910" == found.hint


async def test_who_stands_by_is_alive_and_not_ready(api: Scene) -> None:
    api.entrance.close()
    answers = [await api.client.get(path) for path in ("/healthz", "/readyz", "/v1/openapi.json")]

    assert [200, 503, 200] == [answer.status for answer in answers]
    assert "standby" == (await problem(answers[1])).code
    assert "1" == answers[1].headers["Retry-After"]


async def test_what_is_being_served_ends_with_the_lead(api: Scene) -> None:
    view = await api.submit()
    headers = {"Accept": "text/event-stream"}
    response = await api.get(f"/v1/sessions/{view.id}/events", **headers)
    await response.content.readline()
    api.entrance.close()

    with pytest.raises(aiohttp.ClientPayloadError):
        async with asyncio.timeout(PATIENCE_S):
            await response.read()


async def test_who_leads_again_serves_again(api: Scene) -> None:
    api.entrance.close()
    away = await api.get("/v1/sessions")
    api.entrance.open(api.doors)
    back = await api.get("/v1/sessions")

    assert (503, 200) == (away.status, back.status)
