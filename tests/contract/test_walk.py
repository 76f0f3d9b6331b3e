"""The whole manager over real sockets: HTTP on one side, agents without engines on the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import pytest

from phalanx_manager.config import ManagerConfig
from phalanx_manager.serve import Running, serve
from phalanx_wire import join
from phalanx_wire.api import NodeList, SessionView, TokenCreated
from tests.support.ideal_agent import IdealAgent
from tests.support.manager_api import sse

PATIENCE_S = 20.0
SMALL = {"cpu": 0.1, "mem": "64M", "shm": "16M", "pids": 64}


@dataclass
class House:
    """A manager that is up, with agents."""

    http: aiohttp.ClientSession
    config: ManagerConfig

    async def submit(self, name: str, size: int, *command: str) -> SessionView:
        body = {"name": name, "size": size, "image": "i", "command": command, "resources": SMALL}
        async with self.http.post("/v1/sessions", json=body) as response:
            assert 201 == response.status, await response.text()
            return msgspec.json.decode(await response.read(), type=SessionView)

    async def wait(self, ref: str, until: str) -> SessionView:
        url = f"/v1/sessions/{ref}/wait?until={until}&timeout_s={PATIENCE_S}"
        async with self.http.get(url) as response:
            return msgspec.json.decode(await response.read(), type=SessionView)


@asynccontextmanager
async def house(folder: Path, agents: int) -> AsyncIterator[House]:
    config = ManagerConfig(data_dir=folder, http="127.0.0.1:0", rpc="tcp://127.0.0.1:*")
    up: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        serving = [tasks.create_task(serve(config, up.set_result))]
        try:
            async with asyncio.timeout(PATIENCE_S):
                running = await up
            token = config.token_file.read_text().strip()
            headers = {"Authorization": f"Bearer {token}"}
            async with aiohttp.ClientSession(running.http, headers=headers) as http:
                for number in range(agents):
                    body = {"name": f"host-{number}"}
                    async with http.post("/v1/agent-tokens", json=body) as response:
                        made = msgspec.json.decode(await response.read(), type=TokenCreated)
                    agent = IdealAgent(f"host-{number}", join.parse(made.token))
                    await agent.join()
                    ready = asyncio.Event()
                    serving.append(tasks.create_task(agent.run(ready)))
                    async with asyncio.timeout(PATIENCE_S):
                        await ready.wait()
                made_house = House(http, config)
                await _all_ready(made_house, agents)
                yield made_house
        finally:
            for task in reversed(serving):
                task.cancel()


async def _all_ready(house: House, agents: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            async with house.http.get("/v1/nodes") as response:
                nodes = msgspec.json.decode(await response.read(), type=NodeList).nodes
            if agents == sum(node.state == "ready" for node in nodes):
                return


async def test_a_session_runs_to_its_end(tmp_path: Path) -> None:
    async with house(tmp_path, 1) as here:
        await here.submit("demo", 3, "exit", "0")
        view = await here.wait("demo", "ended")
        assert ("succeeded", 0) == (view.state, view.exit_code)
        assert ["host-0"] * 3 == [kernel.agent for kernel in view.kernels]


async def test_a_failure_of_the_command_is_the_sessions(tmp_path: Path) -> None:
    async with house(tmp_path, 1) as here:
        await here.submit("demo", 2, "exit", "3")
        view = await here.wait("demo", "ended")
        assert ("failed", 3) == (view.state, view.exit_code)


async def test_a_session_is_stopped(tmp_path: Path) -> None:
    async with house(tmp_path, 1) as here:
        await here.submit("demo", 2, "sleep", "99")
        assert "running" == (await here.wait("demo", "running")).state
        async with here.http.post("/v1/sessions/demo/stop", json={}) as response:
            assert 200 == response.status
        assert "cancelled" == (await here.wait("demo", "ended")).state


async def test_followed_output_comes_and_ends_with_the_session(tmp_path: Path) -> None:
    async with house(tmp_path, 1) as here:
        view = await here.submit("demo", 2, "exit", "0")
        async with here.http.get("/v1/sessions/demo/logs?follow=1") as response:
            async with asyncio.timeout(PATIENCE_S):
                found = [(name, data) async for _id, name, data in sse(response)]
        assert ["log", "log", "end"] == [name for name, _data in found]
        texts = {msgspec.json.decode(data)["text"] for _name, data in found[:2]}
        assert {f"hello from {view.id}-1-{rank}" for rank in (0, 1)} == texts


async def test_exec_goes_all_the_way(tmp_path: Path) -> None:
    async with house(tmp_path, 1) as here:
        await here.submit("demo", 1, "sleep", "99")
        await here.wait("demo", "running")
        url = '/v1/sessions/demo/exec?command=["echo","hi"]'
        async with here.http.ws_connect(url) as socket:
            assert b"\x01echo hi" == await socket.receive_bytes(timeout=PATIENCE_S)
            assert {"exit_code": 0} == await socket.receive_json(timeout=PATIENCE_S)


@pytest.mark.parametrize("size", [1, 8])
async def test_the_managers_part_of_a_start_takes_milliseconds(tmp_path: Path, size: int) -> None:
    async with house(tmp_path, 1) as here:
        took = []
        for number in range(10):
            begun = time.perf_counter()
            await here.submit(f"s{number}", size, "sleep", "99")
            assert "running" == (await here.wait(f"s{number}", "running")).state
            took.append(time.perf_counter() - begun)
        took.sort()
        print(f"submit to running, {size} kernels: median {took[5] * 1e3:.1f} ms")
        assert took[5] < 0.5
