"""Tokens, nodes, health, the description, and where the API listens."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import timedelta
from pathlib import Path

import aiohttp
import msgspec
import pytest

from phalanx_manager.http.app import CannotListenError, listen
from phalanx_manager.http.ask import Route
from phalanx_manager.http.entrance import Entrance
from phalanx_manager.http.openapi import document
from phalanx_manager.http.routes import ROUTES
from phalanx_wire import join
from phalanx_wire.api import NodeList, TokenCreated, TokenList
from tests.support.manager_api import SERVER_KEY, SPEC, START, Scene, problem


async def _created(response: aiohttp.ClientResponse) -> TokenCreated:
    assert 201 == response.status, await response.text()
    return msgspec.json.decode(await response.read(), type=TokenCreated)


# ---------------------------------------------------------------- tokens


async def test_a_new_token_works_until_it_expires(api: Scene) -> None:
    wish = {"name": "carol", "scope": "user", "ttl_s": 60}
    made = await _created(await api.post("/v1/tokens", wish, "root"))
    assert START + timedelta(seconds=60) == made.expires_at
    api.tokens["carol"] = made.token
    assert 200 == (await api.get("/v1/sessions", "carol")).status
    api.clock.passed_s = 60
    assert 401 == (await api.get("/v1/sessions", "carol")).status


async def test_tokens_are_listed_without_their_secrets_and_revoked(api: Scene) -> None:
    made = await _created(await api.post("/v1/tokens", {"name": "carol"}, "root"))
    text = await (await api.get("/v1/tokens", "root")).text()
    listed = msgspec.json.decode(text, type=TokenList).tokens
    assert made.token not in text
    assert {"bearer", "agent"} == {token.kind for token in listed}
    for _time in range(2):
        response = await api.client.delete(f"/v1/tokens/{made.id}", headers=api.as_("root"))
        assert 204 == response.status
    response = await api.client.delete("/v1/tokens/nothing", headers=api.as_("root"))
    assert "not_found" == (await problem(response)).code


async def test_who_revokes_a_token_ends_what_follows_by_it(api: Scene) -> None:
    made = await _created(await api.post("/v1/tokens", {"name": "carol", "scope": "user"}, "root"))
    stream = {"Accept": "text/event-stream"}
    theirs = await api.client.get(
        "/v1/events", headers={"Authorization": f"Bearer {made.token}", **stream}
    )
    own = await api.client.get("/v1/events", headers={**api.as_("root"), **stream})

    assert 204 == (await api.client.delete(f"/v1/tokens/{made.id}", headers=api.as_("root"))).status

    with pytest.raises(aiohttp.ClientPayloadError):
        await theirs.read()
    assert not own.content.at_eof()
    own.close()


async def test_who_revokes_a_used_join_token_expels_the_agent(api: Scene) -> None:
    name = (await api.doors.store.agents())[0].name
    response = await api.client.delete(f"/v1/tokens/join-{name}", headers=api.as_("root"))
    assert 204 == response.status
    assert [name] == api.link.expelled


async def test_a_join_token_says_where_and_who_the_manager_is(api: Scene) -> None:
    made = await _created(await api.post("/v1/agent-tokens", {"name": "gpu-7"}, "root"))
    token = join.parse(made.token)
    assert (("tcp://10.0.0.9:7911",), SERVER_KEY) == (token.addresses, token.server_key)
    assert START + timedelta(seconds=900) == made.expires_at


@pytest.mark.parametrize(
    ("url", "body", "field"),
    [
        ("/v1/tokens", {"name": "Not A Name"}, "name"),
        ("/v1/tokens", {"name": "a", "scope": "god"}, "scope"),
        ("/v1/tokens", {"name": "a", "ttl_s": 0}, "ttl_s"),
        ("/v1/tokens", {"name": "a", "ttl_s": 1e300}, "ttl_s"),
        ("/v1/tokens", {}, ""),
        ("/v1/agent-tokens", {"name": ""}, "name"),
        ("/v1/agent-tokens", {"cluster": "a/b"}, "cluster"),
        ("/v1/agent-tokens", {"ttl_s": -5}, "ttl_s"),
        ("/v1/agent-tokens", {"scope": "admin"}, "scope"),
    ],
)
async def test_a_wrong_wish_for_a_token_is_refused(
    api: Scene, url: str, body: object, field: str
) -> None:
    response = await api.post(url, body, "root")
    assert (400, field) == (response.status, (await problem(response)).field)


# ---------------------------------------------------------------- nodes


async def test_nodes_show_what_is_used_and_by_whom_as_far_as_it_is_ones_business(
    api: Scene,
) -> None:
    await api.running("ada")
    holders = {}
    for user in ("ada", "bob", "root"):
        response = await api.get("/v1/nodes", user)
        (node,) = msgspec.json.decode(await response.read(), type=NodeList).nodes
        assert ("gpu-1", "ready", 64.0, 0.2) == (
            node.name,
            node.state,
            node.capacity.cpu,
            node.used.cpu,
        )
        holders[user] = [holder.host_name for holder in node.holders]
    assert {"ada": ["main1", "sub1"], "bob": [], "root": ["main1", "sub1"]} == holders


# ---------------------------------------------------------------- health


async def test_it_is_alive_and_ready(api: Scene) -> None:
    for path in ("/healthz", "/readyz"):
        response = await api.client.get(path)
        assert (200, "ok\n") == (response.status, await response.text())


async def test_without_its_database_it_is_alive_but_not_ready(api: Scene) -> None:
    api.store.close()
    assert 200 == (await api.client.get("/healthz")).status
    response = await api.client.get("/readyz")
    assert (503, "not_ready") == (response.status, (await problem(response)).code)
    response = await api.get("/v1/sessions")
    assert (503, "unavailable") == (response.status, (await problem(response)).code)


async def test_numbers_are_told_for_prometheus(api: Scene) -> None:
    await api.running()
    await api.get("/v1/sessions/demo")
    response = await api.client.get("/metrics")
    lines = (await response.text()).splitlines()
    for line in (
        'phalanx_sessions{state="running"} 1',
        'phalanx_kernels{state="running"} 2',
        'phalanx_agents{state="ready"} 1',
        "phalanx_agents_connected 0",
        'phalanx_http_requests_total{method="GET",path="/v1/sessions/{ref}",status="200"} 1',
        "# TYPE phalanx_loop_turns_total counter",
    ):
        assert line in lines


# ---------------------------------------------------------------- the description


async def test_the_description_names_every_route_and_shape(api: Scene) -> None:
    response = await api.client.get("/v1/openapi.json")
    described = await response.json()
    assert "3.1.0" == described["openapi"]
    paths = described["paths"]
    assert {(r.method.lower(), r.path) for r in ROUTES} == {
        (method, path) for path, methods in paths.items() for method in methods
    }
    assert {"SessionSpec", "SessionView", "Problem", "LogEvent", "DryRun"} <= set(
        described["components"]["schemas"]
    )


def test_every_reference_of_the_description_leads_somewhere() -> None:
    described = document(ROUTES, "0")
    schemas = described["components"]["schemas"]
    text = msgspec.json.encode(described).decode()
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(schemas)


def test_operations_have_names_of_their_own() -> None:
    described = document(ROUTES, "0")
    ids = [op["operationId"] for methods in described["paths"].values() for op in methods.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_what_changes_something_needs_more_than_reading(route: Route) -> None:
    assert route.method == "GET" or route.scope in {"user", "admin"}


# ---------------------------------------------------------------- where it listens


async def test_it_listens_on_a_port_or_a_unix_socket(api: Scene, tmp_path: Path) -> None:
    async with (
        listen(Entrance.to(api.doors), "127.0.0.1:0") as url,
        aiohttp.ClientSession() as client,
    ):
        assert 200 == (await client.get(f"{url}/healthz")).status
    path = f"{tmp_path}/api.sock"
    for _time in range(2):
        async with listen(Entrance.to(api.doors), f"unix://{path}"):
            connector = aiohttp.UnixConnector(path)
            async with aiohttp.ClientSession(connector=connector) as client:
                assert 200 == (await client.get("http://localhost/healthz")).status


async def test_who_asks_nothing_makes_room_and_who_is_served_stays(api: Scene) -> None:
    headers = {"Authorization": f"Bearer {api.tokens['root']}", "Accept": "text/event-stream"}
    async with (
        listen(Entrance.to(api.doors), "127.0.0.1:0", most=2) as url,
        aiohttp.ClientSession(headers=headers) as client,
        client.get(f"{url}/v1/events") as served,
    ):
        port = int(url.rpartition(":")[2])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _one in range(4)]
        async with client.get(f"{url}/v1/events") as second:
            assert 200 == second.status
            for reader, writer in idle:
                assert b"" == await reader.read()
                writer.close()
            with pytest.raises(aiohttp.ClientConnectionError):
                await client.get(f"{url}/healthz")
        assert not served.content.at_eof()


async def test_a_socket_that_a_dead_process_left_is_replaced(api: Scene, tmp_path: Path) -> None:
    path = f"{tmp_path}/api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    async with listen(Entrance.to(api.doors), f"unix://{path}"):
        with pytest.raises(CannotListenError, match="another process"):
            async with listen(Entrance.to(api.doors), f"unix://{path}"):
                pass


async def test_a_socket_passed_by_systemd_is_used(
    api: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = socket.create_server(("127.0.0.1", 0))
    port, number = passed.getsockname()[1], passed.detach()
    monkeypatch.setenv("LISTEN_FDS", str(number - 2))
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    async with (
        listen(Entrance.to(api.doors), f"fd://{number}") as url,
        aiohttp.ClientSession() as client,
    ):
        assert f"http://127.0.0.1:{port}" == url
        assert 200 == (await client.get(f"{url}/healthz")).status
    with pytest.raises(CannotListenError, match="sockets were passed"):
        async with listen(Entrance.to(api.doors), f"fd://{number + 1}"):
            pass


async def test_without_a_passed_socket_it_says_so(api: Scene) -> None:
    with pytest.raises(CannotListenError, match="no socket was passed"):
        async with listen(Entrance.to(api.doors), "fd://3"):
            pass


@pytest.mark.parametrize("address", ["", "7910", "host:port", "127.0.0.1:70000", "tcp://x:y"])
async def test_a_wrong_address_is_said(api: Scene, address: str) -> None:
    with pytest.raises(CannotListenError, match="host:port"):
        async with listen(Entrance.to(api.doors), address):
            pass


async def test_a_port_in_use_is_said(api: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListenError, match=r"[Aa]ddress already in use"):
            async with listen(Entrance.to(api.doors), f"127.0.0.1:{port}"):
                pass


async def test_a_session_made_by_a_client_that_hung_up_is_there(api: Scene) -> None:
    reader = await api.client.post(
        "/v1/sessions", json=SPEC, headers=api.as_("ada") | {"Idempotency-Key": "k"}
    )
    reader.close()
    assert "demo" == (await api.view("demo")).name


@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_a_client_that_leaves_in_the_middle_leaves_nothing_half_made(
    api: Scene, turns: int
) -> None:
    """It leaves after so many turns of the loop, which may be before, in or after the commit."""
    body = msgspec.json.encode(SPEC)
    head = (
        f"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: {api.as_('ada')['Authorization']}\r\nIdempotency-Key: k\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    _reader, writer = await asyncio.open_connection(api.client.host, api.client.port)
    writer.write(head.encode() + body)
    for _turn in range(turns):
        await asyncio.sleep(0)
    assert writer.transport is not None
    writer.transport.abort()

    again = await api.post("/v1/sessions", SPEC, **{"Idempotency-Key": "k"})
    listed = await (await api.get("/v1/sessions?all=1")).json()

    assert again.status in {200, 201}
    (one,) = listed["sessions"]
    assert (one["id"], 2) == ((await again.json())["id"], len(one["kernels"]))
