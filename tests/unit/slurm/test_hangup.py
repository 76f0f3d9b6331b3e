"""Allocations are given back when the program that made them is asked to end, or is cut off."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from phalanx_wire.api import SessionList, SessionView
from phalanx_wire.ids import SessionId
from phalanx_wire.spec import SlurmJob
from tests.unit.client.fake_manager import TOKEN, FakeManager, Running, session

ONE = "/v1/sessions/id45"
ENDING = [signal.SIGTERM, signal.SIGHUP]


def job(state: str) -> SessionView:
    view = session(state)  # type: ignore[arg-type]
    spec = msgspec.structs.replace(view.spec, slurm=SlurmJob(name="train", submit_user="ada"))
    return msgspec.structs.replace(view, id=SessionId("id45"), number=45, spec=spec)


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    with Running(FakeManager()) as running:
        ranks = [{"rank": 0, "host_name": "main1", "variables": []}]
        running.on("GET", "/v1/sessions", SessionList(()))
        running.on("POST", "/v1/sessions", job("pending"))
        running.on("GET", f"{ONE}/wait", job("running"))
        running.on("GET", f"{ONE}/env", {"profile": "slurm", "ranks": ranks})
        running.on("POST", f"{ONE}/stop", {})
        yield running


def program(manager: FakeManager, folder: Path, *argv: str) -> subprocess.Popen[str]:
    ours = {"URL": manager.url, "TOKEN": TOKEN, "CONFIG": str(folder / "none.toml")}
    ours |= {"SLURM_IMAGE": "my/image", "SLURM_SHARED": str(folder)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return subprocess.Popen(
        [sys.executable, "-m", "phalanx_client.slurm", *argv],
        stdin=subprocess.PIPE,  # so that a command that reads it goes on until we end it
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=kept | {f"PHALANX_{name}": value for name, value in ours.items()},
    )


@pytest.mark.parametrize("number", ENDING)
def test_a_held_allocation_ends_with_its_terminal(
    manager: FakeManager, tmp_path: Path, number: signal.Signals
) -> None:
    with program(manager, tmp_path, "salloc", "-N1", "sh", "-c", "echo there; exec cat") as held:
        assert held.stdout is not None
        assert "there\n" == held.stdout.readline()
        held.send_signal(number)
        _, said = held.communicate(timeout=30)

    assert 130 == held.returncode, said
    assert 1 == len(manager.asked("POST", f"{ONE}/stop"))


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("name", ["salloc", "srun"])
def test_what_still_waits_for_its_allocation_takes_it_back(
    manager: FakeManager, tmp_path: Path, name: str, number: signal.Signals
) -> None:
    waiting: list[int] = []

    async def meanwhile(_request: web.Request) -> web.StreamResponse:
        os.kill(waiting[0], number)
        await stopped.wait()  # and answers nobody before
        return web.Response(status=204)

    async def stop(_request: web.Request) -> web.StreamResponse:
        stopped.set()
        return web.json_response({})

    stopped = asyncio.Event()
    manager.on("GET", f"{ONE}/wait", meanwhile)
    manager.on("POST", f"{ONE}/stop", stop)
    ready = tmp_path / "ready"

    async def submitted(_request: web.Request) -> web.Response:
        waiting.append(int(ready.read_text()))
        body = msgspec.json.encode(job("pending"))
        return web.Response(body=body, status=201, content_type="application/json")

    manager.on("POST", "/v1/sessions", submitted)
    with program(manager, tmp_path, name, "-N1", "cat") as asked:
        ready.write_text(str(asked.pid))
        asked.communicate(timeout=30)

    assert 130 == asked.returncode
    assert 1 == len(manager.asked("POST", f"{ONE}/stop"))


def test_a_step_whose_manager_dies_is_a_sentence_and_its_job_ends(
    manager: FakeManager, tmp_path: Path
) -> None:
    async def dies(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        assert request.transport is not None
        request.transport.abort()
        return socket

    manager.on("GET", f"{ONE}/steps", dies)
    with program(manager, tmp_path, "srun", "-N1", "cat") as asked:
        _, said = asked.communicate(timeout=30)

    assert 1 == asked.returncode
    assert "the connection ended before the command did" in said
    assert "bug" not in said
    assert 1 == len(manager.asked("POST", f"{ONE}/stop"))
