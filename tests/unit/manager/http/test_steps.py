"""Steps by WebSocket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from phalanx_wire.mux import Stream
from phalanx_wire.stream import SIGNAL, STDIN, STDOUT, Data, Eof, ExecCall
from tests.support.manager_api import Scene, scene

PATIENCE_S = 10.0
STEPS = "/v1/sessions/demo/steps"
CAT = '{"command": ["cat"]}'


async def task(stream: Stream) -> None:
    """A task that says back what it hears, and ends with its number."""
    assert isinstance(stream.call, ExecCall)
    async for item in stream:
        match item:
            case Data(channel=channel, data=data) if channel == STDIN:
                await stream.write(STDOUT, data)
            case Data(channel=channel, data=data) if channel == SIGNAL:
                await stream.write(STDOUT, b"signal %d\n" % data[0])
            case Eof():
                await stream.close(exit_code=int(stream.call.env["SLURM_PROCID"]))
            case _:
                continue


async def frames(socket: aiohttp.ClientWebSocketResponse) -> list[object]:
    """Read all frames: bytes, or what the JSON says."""
    found: list[object] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in socket:
            text = message.type is aiohttp.WSMsgType.TEXT
            found.append(json.loads(message.data) if text else message.data)
    return found


async def test_a_step_has_input_signals_output_and_a_code(tmp_path: Path) -> None:
    async with scene(tmp_path, task) as api:
        row = await api.running()
        async with api.client.ws_connect(STEPS, headers=api.as_("ada")) as socket:
            await socket.send_str(CAT)
            await socket.send_bytes(b"\x00hello\n")
            await socket.send_str('{"signal": 10}')
            await socket.send_str('{"eof": true}')
            *said, end = await frames(socket)
        tasks = len(row.kernels)
        out = b"".join(data[1:] for data in said if isinstance(data, bytes) and data[0] == STDOUT)

        assert sorted([b"hello", b"signal 10"] * tasks) == sorted(out.splitlines())
        assert {"exit_code": tasks - 1} == end


async def test_a_client_that_goes_ends_all_tasks(tmp_path: Path) -> None:
    async with scene(tmp_path, task) as api:
        await api.running()
        async with api.client.ws_connect(STEPS, headers=api.as_("ada")) as socket:
            await socket.send_str(CAT)
            await socket.send_bytes(b"\x00x\n")
            await socket.receive_bytes()
        await api.link.until(lambda: not any(len(ours) for ours, _ in api.link.muxes))


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "bad_frame"),
        ('{"command": "cat"}', "bad_frame"),
        ('{"command": []}', "no_command"),
        ('{"command": ["cat"], "hosts": ["sub9"]}', "no_such_host"),
        (b"\x00x", "bad_frame"),
    ],
)
async def test_a_step_that_makes_no_sense_is_refused(
    tmp_path: Path, frame: str | bytes, code: str
) -> None:
    async with scene(tmp_path, task) as api:
        await api.running()
        async with api.client.ws_connect(STEPS, headers=api.as_("ada")) as socket:
            await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
            (end,) = await frames(socket)
        assert isinstance(end, dict)
        assert code == end["problem"]["code"]


@pytest.mark.parametrize("frame", ["{}", '{"resize": [0, 1]}', '{"signal": 99}', "[]"])
async def test_a_later_frame_that_makes_no_sense_ends_the_step(tmp_path: Path, frame: str) -> None:
    async with scene(tmp_path, task) as api:
        await api.running()
        async with api.client.ws_connect(STEPS, headers=api.as_("ada")) as socket:
            await socket.send_str(CAT)
            await socket.send_str(frame)
            (end,) = await frames(socket)
        assert isinstance(end, dict)
        assert "bad_frame" == end["problem"]["code"]


async def test_no_step_begins_where_nothing_runs(api: Scene) -> None:
    await api.submit()
    response = await api.client.get(STEPS, headers=api.as_("ada"))

    assert 409 == response.status
    assert "not_running" == (await response.json())["code"]
