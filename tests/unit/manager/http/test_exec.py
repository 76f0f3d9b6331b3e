from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import aiohttp
import pytest
import structlog
from aiohttp import web

from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import MIN_WINDOW_BYTES, Stream, StreamClosed
from phalanx_wire.stream import STDERR, STDOUT, Data, Eof, ExecCall, Resize
from tests.support.manager_api import PATIENCE_S, Scene, problem, scene

CAT = '/v1/sessions/demo/exec?rank=1&stdin=1&command=["cat"]'
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def cat(stream: Stream) -> None:
    """Echo input, say sizes on STDERR, end with 7."""
    async for item in stream:
        match item:
            case Data():
                await stream.write(STDOUT, item.data)
            case Resize():
                await stream.write(STDERR, f"{item.rows}x{item.columns}".encode())
            case Eof():
                break
    await stream.close(exit_code=7)


async def frames(socket: aiohttp.ClientWebSocketResponse) -> list[object]:
    """Read all frames: bytes, or what the JSON says."""
    found: list[object] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in socket:
            text = message.type is aiohttp.WSMsgType.TEXT
            found.append(json.loads(message.data) if text else message.data)
    return found


async def test_a_command_has_input_output_a_terminal_and_an_exit_code(tmp_path: Path) -> None:
    async with scene(tmp_path, cat) as api:
        row = await api.running()
        async with api.client.ws_connect(CAT, headers=api.as_("ada")) as socket:
            await socket.send_bytes(b"\x00hello")
            assert b"\x01hello" == await socket.receive_bytes()
            await socket.send_str('{"resize": [40, 100]}')
            assert b"\x0240x100" == await socket.receive_bytes()
            await socket.send_str('{"eof": true}')
            assert [{"exit_code": 7}] == await frames(socket)
            assert 1000 == socket.close_code
        call = ExecCall(row.kernels[1].id, ("cat",), stdin=True)
        assert [call] == api.link.calls


async def test_a_shell_on_a_terminal_of_some_size(tmp_path: Path) -> None:
    async with scene(tmp_path, cat) as api:
        row = await api.running()
        url = "/v1/sessions/demo/exec?shell=1&tty=1&stdin=1&rows=50&columns=132"
        async with api.client.ws_connect(url, headers=api.as_("ada")) as socket:
            await socket.send_str('{"eof": true}')
            await frames(socket)
        call = ExecCall(row.kernels[0].id, (), True, True, True, 50, 132)
        assert [call] == api.link.calls


async def test_a_client_that_goes_ends_the_command(tmp_path: Path) -> None:
    async with scene(tmp_path, cat) as api:
        await api.running()
        async with api.client.ws_connect(CAT, headers=api.as_("ada")) as socket:
            await socket.send_bytes(b"\x00x")
            await socket.receive_bytes()
        await api.link.until(lambda: not any(len(ours) for ours, _ in api.link.muxes))


async def test_a_client_that_is_gone_at_the_end_is_no_failure_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_socket: web.WebSocketResponse, _text: str) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(web.WebSocketResponse, "send_str", broken)
    with structlog.testing.capture_logs() as logged:
        async with scene(tmp_path, cat) as api:
            await api.running()
            async with api.client.ws_connect(CAT, headers=api.as_("ada")) as socket:
                await socket.send_str('{"eof": true}')
                await frames(socket)
    assert [] == [line for line in logged if line["event"] == "http.failed"]


async def test_a_lost_link_is_said_as_a_problem(tmp_path: Path) -> None:
    async with scene(tmp_path, cat) as api:
        await api.running()
        async with api.client.ws_connect(CAT, headers=api.as_("ada")) as socket:
            api.link.lose()
            (end,) = await frames(socket)
            assert isinstance(end, dict)
            assert "link_lost" == end["problem"]["code"]


async def test_who_has_as_many_streams_to_an_agent_as_may_be_is_told_so_and_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_manager.rpc.shares.MAX_STREAMS", 4)
    async with scene(tmp_path, cat) as api:
        await api.running()
        await api.running("bob", name="bobs")
        async with (
            api.client.ws_connect(CAT, headers=api.as_("ada")),
            api.client.ws_connect(CAT, headers=api.as_("ada")),
        ):
            refused = await problem(await api.get(CAT, **UPGRADE))
            other = CAT.replace("demo", "bobs")
            async with api.client.ws_connect(other, headers=api.as_("bob")) as socket:
                await socket.send_str('{"eof": true}')
                assert [{"exit_code": 7}] == await frames(socket)

    assert (429, "too_many_requests") == (refused.status, refused.code)
    assert "ada has 2 streams to agent gpu-1, as many as may be" == refused.title
    assert "end some of them" == refused.hint


async def test_what_the_agent_refuses_is_said_as_a_problem(api: Scene) -> None:
    await api.running()
    async with api.client.ws_connect(CAT, headers=api.as_("ada")) as socket:
        (end,) = await frames(socket)
        assert isinstance(end, dict)
        assert ("bad_call", "nothing is served here") == (
            end["problem"]["code"],
            end["problem"]["title"],
        )


@pytest.mark.parametrize(
    "frame",
    [b"", b"\x01out", b"\x09x", "{", "[]", '{"resize": [0, 5]}', '{"resize": 5}', '{"x": 1}'],
)
async def test_a_frame_that_makes_no_sense_ends_the_command(
    tmp_path: Path, frame: str | bytes
) -> None:
    async with scene(tmp_path, cat) as api:
        await api.running()
        async with api.client.ws_connect(CAT, headers=api.as_("ada")) as socket:
            if isinstance(frame, bytes):
                await socket.send_bytes(frame)
            else:
                await socket.send_str(frame)
            (end,) = await frames(socket)
            assert isinstance(end, dict)
            assert "bad_frame" == end["problem"]["code"]


async def test_a_frame_that_is_too_large_closes_the_socket(tmp_path: Path) -> None:
    async with scene(tmp_path, cat) as api:
        await api.running()
        async with api.client.ws_connect(CAT, headers=api.as_("ada")) as socket:
            await socket.send_bytes(bytes(2 << 20))
            await frames(socket)
            assert 1009 == socket.close_code
        await api.link.until(lambda: not any(len(ours) for ours, _ in api.link.muxes))


async def test_a_frame_that_announces_100_mb_is_refused_before_it_comes(tmp_path: Path) -> None:
    async with scene(tmp_path, cat) as api:
        await api.running()
        async with api.client.ws_connect(CAT, headers=api.as_("ada")) as socket:
            wire = socket.get_extra_info("socket")
            announced = b"\x82\xff" + (100 << 20).to_bytes(8, "big") + bytes(4)
            assert len(announced) == os.write(wire.fileno(), announced)
            await frames(socket)
            assert 1009 == socket.close_code


async def test_much_input_that_nobody_reads_is_held_back(tmp_path: Path) -> None:
    """A command that reads nothing gets no more than its window."""
    opened: list[Stream] = []
    never = asyncio.Event()

    async def deaf(stream: Stream) -> None:
        opened.append(stream)
        await never.wait()

    async with scene(tmp_path, deaf) as api:
        await api.running()
        quick = aiohttp.ClientWSTimeout(ws_close=0.1)
        async with api.client.ws_connect(CAT, headers=api.as_("ada"), timeout=quick) as socket:
            sending = asyncio.ensure_future(_flood(socket))
            for _turn in range(3000):
                await asyncio.sleep(0)
            held = opened[0]._held
            assert held <= 1 << 20
            sending.cancel()


async def _flood(socket: aiohttp.ClientWebSocketResponse) -> None:
    for _frame in range(1000):
        await socket.send_bytes(b"\x00" + bytes(256 << 10))


async def test_much_output_passes(tmp_path: Path) -> None:
    async def pour(stream: Stream) -> None:
        for _piece in range(200):
            await stream.write(STDOUT, bytes(64 << 10))
        await stream.close(exit_code=0)

    async with scene(tmp_path, pour) as api:
        await api.running()
        async with api.client.ws_connect(CAT, headers=api.as_("ada")) as socket:
            *data, end = await frames(socket)
            assert {"exit_code": 0} == end
            assert 200 * (64 << 10) == sum(len(d) - 1 for d in data if isinstance(d, bytes))


async def test_exec_needs_a_running_container(api: Scene) -> None:
    row = await api.placed()
    await api.move(row.session.id, KernelState.CREATED)
    assert "not_running" == (await problem(await api.get(CAT))).code


async def test_exec_needs_a_websocket(api: Scene) -> None:
    await api.running()
    response = await api.get(CAT)
    assert (426, "websocket_expected") == (response.status, (await problem(response)).code)


async def test_a_subprotocol_is_nobodys(tmp_path: Path) -> None:
    """We speak none, so none is chosen; whoever insists on one sees that and leaves."""
    async with scene(tmp_path, cat) as api:
        await api.running()
        async with api.client.ws_connect(
            CAT, headers=api.as_("ada"), protocols=("telnet",)
        ) as socket:
            assert socket.protocol is None


async def test_a_page_of_another_site_may_not_exec(api: Scene) -> None:
    await api.running()
    response = await api.get(CAT, Origin="https://evil.example")
    assert (403, "foreign_origin") == (response.status, (await problem(response)).code)


async def test_exec_on_an_agent_that_is_away_is_unavailable(api: Scene) -> None:
    row = await api.running()
    assert row.kernels[1].agent is not None
    api.link.away.add(row.kernels[1].agent)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await api.client.ws_connect(CAT, headers=api.as_("ada"))
    assert 503 == caught.value.status


async def test_a_writer_learns_of_the_end(tmp_path: Path) -> None:
    told: list[str] = []

    async def answer(stream: Stream) -> None:
        try:
            while True:
                await stream.write(STDOUT, bytes(1 << 10))
                await asyncio.sleep(0)
        except StreamClosed as error:
            told.append(error.closed.code)

    async with scene(tmp_path, answer) as api:
        await api.running()
        async with api.client.ws_connect(CAT, headers=api.as_("ada")) as socket:
            await socket.receive_bytes()
        await api.link.until(lambda: bool(told))
    assert ["cancelled"] == told


@pytest.mark.parametrize("many", [True, False])
async def test_no_more_waits_in_the_kernel_than_in_a_stream_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, many: bool
) -> None:
    if many:
        monkeypatch.setattr("phalanx_manager.rpc.shares._WINDOWS_BYTES", 0)
    told: set[tuple[int, ...]] = set()
    really = socket.socket.setsockopt

    def noting(connection: socket.socket, *option: int) -> None:
        told.add(option)
        really(connection, *option)

    monkeypatch.setattr(socket.socket, "setsockopt", noting)
    async with scene(tmp_path, cat) as api:
        await api.running()
        async with api.client.ws_connect(CAT, headers=api.as_("ada")) as line:
            await line.send_str('{"eof": true}')
            await frames(line)

    for direction in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        assert many == ((socket.SOL_SOCKET, direction, MIN_WINDOW_BYTES // 2) in told)
