"""Clusters over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse

from phalanx_manager.core.clusters import next_steps
from phalanx_wire.ids import AgentId, ClusterName
from phalanx_wire.pools import ClusterList, ClusterView
from tests.support.manager_api import Scene, problem

ALL = "/v1/clusters"
LAB = f"{ALL}/lab"


async def view(response: ClientResponse, status: int = 200) -> ClusterView:
    assert status == response.status, await response.text()
    return msgspec.json.decode(await response.read(), type=ClusterView)


async def made(api: Scene, name: str = "lab", **fields: Any) -> ClusterView:
    return await view(await api.post(ALL, {"name": name, **fields}, "root"), 201)


async def remove(api: Scene, query: str = "", user: str = "root") -> ClientResponse:
    return await api.client.delete(f"{LAB}{query}", headers=api.as_(user))


async def test_a_new_cluster_waits_for_its_agents(api: Scene) -> None:
    first = await made(api)
    listed = await api.get(ALL, "eve")
    found = msgspec.json.decode(await listed.read(), type=ClusterList).clusters

    assert ("creating", "no agent has joined this cluster yet") == (first.state, first.reason)
    assert [("default", "running"), ("lab", "creating")] == [(c.name, c.state) for c in found]
    assert (AgentId("gpu-1"),) == found[0].ready


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "A"}, 400, "invalid_field"),
        ({"name": "a--b"}, 400, "invalid_field"),
        ({"name": ""}, 400, "invalid_field"),
        ({"name": "x" * 64}, 400, "invalid_field"),
        ({"name": "default"}, 409, "cluster_exists"),
        ({"name": 7}, 400, "invalid_field"),
        ({}, 400, "invalid_field"),
        ({"name": "a", "region": "eu"}, 400, "unknown_field"),
    ],
)
async def test_a_bad_wish_is_refused(
    api: Scene, body: dict[str, Any], status: int, code: str
) -> None:
    found = await problem(await api.post(ALL, body, "root"))
    assert (status, code) == (found.status, found.code)


async def test_only_an_admin_makes_and_removes_clusters(api: Scene) -> None:
    await made(api)
    assert 403 == (await api.post(ALL, {"name": "b"}, "ada")).status
    assert 403 == (await remove(api, user="ada")).status
    assert 200 == (await api.get(LAB, "eve")).status


async def test_what_is_not_there_is_not_found_and_default_stays(api: Scene) -> None:
    for path in (LAB, f"{LAB}/wait", f"{LAB}/events", f"{ALL}/..%2f"):
        assert 404 == (await api.get(path, "root")).status
    assert 404 == (await remove(api)).status
    found = await problem(await api.client.delete(f"{ALL}/default", headers=api.as_("root")))
    assert (409, "cluster_default") == (found.status, found.code)


async def test_a_session_or_agent_for_no_cluster_is_refused_by_its_name(api: Scene) -> None:
    spec = {"image": "a", "command": ["b"], "cluster": "nowhere"}
    session = await problem(await api.post("/v1/sessions", spec, "ada"))
    dry = await problem(await api.post("/v1/sessions?dry_run=1", spec, "ada"))
    token = await problem(await api.post("/v1/agent-tokens", {"cluster": "nowhere"}, "root"))

    for one in (session, dry, token):
        assert (422, "cluster_unknown") == (one.status, one.code)
        assert "there is no cluster nowhere" == one.title


async def test_a_session_waits_in_a_cluster_that_has_no_agent_yet(api: Scene) -> None:
    await made(api)
    waiting = await api.submit(cluster="lab")
    shown = await view(await api.get(LAB, "ada"))

    assert "pending" == waiting.state
    assert (waiting.name,) == shown.sessions


async def test_removal_is_an_order_that_may_be_given_again(api: Scene) -> None:
    await made(api)
    waiting = await api.submit(cluster="lab")
    first = await view(await remove(api), 202)
    await view(await remove(api), 202)
    late = await problem(
        await api.post("/v1/sessions", {"image": "a", "command": ["b"], "cluster": "lab"}, "ada")
    )
    for session, stop in next_steps(await api.store.load(), api.clock.now()).stops:
        await api.store.stop(session, stop)
    over = next_steps(await api.store.load(), api.clock.now()).over

    assert "deleting" == first.state
    assert first.reason == f"1 session ends: {waiting.name}"
    assert "cluster_deleting" == late.code
    assert ("lab",) == over
    assert "cancelled" == (await api.view(waiting.id)).state


async def test_whoever_waits_is_woken_when_it_is_gone(api: Scene) -> None:
    await made(api)
    await remove(api)
    waiting = asyncio.ensure_future(api.get(f"{LAB}/wait?until=removed&timeout_s=60", "root"))
    await api.link.until(lambda: bool(api.chimes._bells.get(None)))
    await api.store.drop_cluster(ClusterName("lab"), "it is gone", api.clock.now())

    assert "deleted" == (await view(await waiting)).state
    assert "deleted" == (await view(await api.get(LAB, "root"))).state
    gone = await problem(await api.post(ALL, {"name": "lab"}, "root"))
    assert "cluster_name_used" == gone.code
    assert "creating" == (await made(api, reuse_name=True)).state


async def test_a_ready_cluster_answers_at_once_and_one_that_is_not_after_the_time(
    api: Scene,
) -> None:
    await made(api)
    ready = await view(await api.get(f"{ALL}/default/wait?nodes=1&timeout_s=60", "ada"))
    not_yet = await view(await api.get(f"{LAB}/wait?timeout_s=0", "ada"))

    assert ("running", "creating") == (ready.state, not_yet.state)


async def test_force_says_what_is_left_behind(api: Scene) -> None:
    await made(api)
    await api.post("/v1/agent-tokens", {"cluster": "lab"}, "root")
    (token,) = [t for t in await api.store.tokens() if t.kind == "agent" and t.cluster == "lab"]
    key = token.public_key
    await api.store.use_agent_token(key, AgentId("far"), "k" * 40, api.clock.now())
    found = await view(await remove(api, "?force=1"), 202)

    (said,) = found.leaves
    assert said == (
        "on far: the network phx-egress; the chains PHALANX-INPUT and PHALANX-FORWARD; and the "
        "folders of its agent"
    )


async def test_the_events_of_a_cluster_are_listed_and_resumed(api: Scene) -> None:
    await made(api)
    await api.submit(cluster="lab")
    await api.submit(name="elsewhere")
    every = msgspec.json.decode(await (await api.get(f"{LAB}/events", "root")).read())
    mine = msgspec.json.decode(await (await api.get(f"{LAB}/events", "ada")).read())
    resumed = await api.get(f"{LAB}/events?after={every[0]['id']}", "root")

    assert ["cluster.created", "session.submitted"] == [event["kind"] for event in every]
    assert every[1:] == mine == msgspec.json.decode(await resumed.read())
