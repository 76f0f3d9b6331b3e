"""Connections into containers, over the real WebSocket, with an agent in this process."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import aiohttp
import msgspec
import pytest

from phalanx_manager.http import forward
from phalanx_wire.api import SshView
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Stream
from phalanx_wire.stream import STDIN, STDOUT, ConnectCall, Data, Eof
from tests.support.manager_api import PATIENCE_S, Scene, problem, scene

KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()
ECHO = "/v1/sessions/demo/forward"
Frame = bytes | dict[str, object]


async def echo(stream: Stream) -> None:
    """Say all back after the end of data, then end."""
    data = b""
    async for item in stream:
        match item:
            case Data(channel=channel):
                assert channel == STDIN
                data += item.data
            case Eof():
                break
            case _:
                continue
    await stream.write(STDOUT, data)
    await stream.eof()
    await stream.close()


async def frames(socket: aiohttp.ClientWebSocketResponse) -> list[Frame]:
    """Read all frames: bytes, or what the JSON says."""
    found: list[Frame] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in socket:
            text = message.type is aiohttp.WSMsgType.TEXT
            found.append(json.loads(message.data) if text else message.data)
    return found


async def test_data_goes_both_ways_and_each_way_ends_by_itself(tmp_path: Path) -> None:
    async with scene(tmp_path, echo) as api:
        row = await api.running()
        query = {"rank": "1", "port": "8888", "key": f"{KEY} me@laptop"}
        async with api.client.ws_connect(ECHO, params=query, headers=api.as_("ada")) as socket:
            await socket.send_bytes(b"\x00any ")
            await socket.send_bytes(b"bytes")
            await socket.send_str('{"eof": true}')
            assert [b"\x00any bytes", {"eof": True}] == await frames(socket)
            assert 1000 == socket.close_code
        assert [ConnectCall(row.kernels[1].id, 8888, KEY)] == api.link.calls


async def test_without_a_port_it_is_the_ssh_server(tmp_path: Path) -> None:
    async with scene(tmp_path, echo) as api:
        row = await api.running()
        async with api.client.ws_connect(ECHO, headers=api.as_("ada")) as socket:
            await socket.send_str('{"eof": true}')
            await frames(socket)
        assert [ConnectCall(row.kernels[0].id)] == api.link.calls


async def test_a_refused_connection_is_said_as_a_problem(tmp_path: Path) -> None:
    async def refuse(stream: Stream) -> None:
        await stream.close(code="connection_refused", why="Port 9 of main1: Connection refused.")

    async with scene(tmp_path, refuse) as api:
        await api.running()
        async with api.client.ws_connect(f"{ECHO}?port=9", headers=api.as_("ada")) as socket:
            (end,) = await frames(socket)
    assert isinstance(end, dict)
    assert {
        "code": "connection_refused",
        "title": "Port 9 of main1: Connection refused.",
        "status": 502,
    } == end["problem"]


async def test_a_client_that_goes_ends_the_connection(tmp_path: Path) -> None:
    async with scene(tmp_path, echo) as api:
        await api.running()
        async with api.client.ws_connect(ECHO, headers=api.as_("ada")) as socket:
            await socket.send_bytes(b"x")
        await api.link.until(lambda: not any(len(ours) for ours, _ in api.link.muxes))


async def test_a_client_that_vanishes_while_nobody_takes_its_data_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def deaf(_stream: Stream) -> None:
        await never.wait()

    monkeypatch.setattr(forward, "PING_S", 0.02)
    async with scene(tmp_path, deaf) as api:
        await api.running()
        socket = await api.client.ws_connect(ECHO, headers=api.as_("ada"))
        flood = asyncio.ensure_future(_flood(socket))
        await asyncio.wait([flood], timeout=0.3)
        assert not flood.done()
        flood.cancel()
        assert socket._conn is not None
        assert socket._conn.transport is not None
        socket._conn.transport.abort()
        await api.link.until(lambda: not any(len(ours) for ours, _ in api.link.muxes))


async def _flood(socket: aiohttp.ClientWebSocketResponse) -> None:
    for _frame in range(1000):
        await socket.send_bytes(bytes(256 << 10))


@pytest.mark.parametrize("frame", ["{", "[]", '{"resize": [1, 2]}', '{"eof": 3}'])
async def test_a_frame_that_makes_no_sense_ends_the_connection(tmp_path: Path, frame: str) -> None:
    async with scene(tmp_path, echo) as api:
        await api.running()
        async with api.client.ws_connect(ECHO, headers=api.as_("ada")) as socket:
            await socket.send_str(frame)
            (end,) = await frames(socket)
    assert isinstance(end, dict)
    assert "bad_frame" == msgspec.convert(end["problem"], dict[str, object])["code"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("port=0", 400, "invalid_parameter"),
        ("port=70000", 400, "invalid_parameter"),
        ("port=abc", 400, "invalid_parameter"),
        ("port=-1", 400, "invalid_parameter"),
        ("rank=7", 404, "no_such_rank"),
        ("key=", 400, "invalid_parameter"),
        ("key=ssh-ed25519%20AAAA", 400, "invalid_parameter"),
        (f"key=no-pty%20{KEY.replace(' ', '%20').replace('+', '%2B')}", 400, "invalid_parameter"),
        ("host=10.0.0.1", 400, "unknown_parameter"),
        ("", 426, "websocket_expected"),
    ],
)
async def test_a_wrong_request_is_refused(api: Scene, query: str, status: int, code: str) -> None:
    await api.running()
    response = await api.get(f"{ECHO}?{query}")
    assert (status, code) == (response.status, (await problem(response)).code)
    assert [] == api.link.calls


async def test_a_container_must_run(api: Scene) -> None:
    row = await api.placed()
    await api.move(row.session.id, KernelState.CREATED)
    response = await api.get(ECHO)
    assert (409, "not_running") == (response.status, (await problem(response)).code)


@pytest.mark.parametrize("path", ["forward", "ssh"])
@pytest.mark.parametrize(("user", "status"), [("bob", 404), ("eve", 403)])
async def test_it_is_for_nobody_but_the_owner(
    api: Scene, path: str, user: str, status: int
) -> None:
    await api.running()
    assert status == (await api.get(f"/v1/sessions/demo/{path}", user)).status


async def test_a_page_of_another_site_may_not_connect(api: Scene) -> None:
    await api.running()
    response = await api.get(ECHO, Origin="https://evil.example")
    assert (403, "foreign_origin") == (response.status, (await problem(response)).code)


async def test_host_keys_are_told_of_every_rank(api: Scene) -> None:
    row = await api.running()
    response = await api.get("/v1/sessions/demo/ssh")
    told = msgspec.json.decode(await response.read(), type=SshView)

    assert (row.session.id, "demo", 1) == (told.id, told.name, told.attempt)
    assert [(one.rank, one.host_name, "running", one.host_key or None) for one in row.kernels] == [
        (one.rank, one.host_name, one.state, one.host_key) for one in told.ranks
    ]
