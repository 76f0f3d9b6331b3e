"""Commands beside the main one, as an engine tells of them that a test has written down."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from phalanx_agent.docker import execs
from phalanx_agent.docker.engine import DockerEngine
from phalanx_agent.docker.port import Unavailable
from tests.support.scripted_engine import Script, breaks, says

CONTAINER = "c" * 64
COMMAND = "e" * 64
LOOK = f"GET exec/{COMMAND}/json"


def seen(*, running: bool = False, pid: int = 0, code: int | None = None) -> dict[str, Any]:
    """A command as an engine shows it."""
    return {"Running": running, "Pid": pid, "ExitCode": code}


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """A shell that waits for its child, whose number it has said."""
    shell = ["sh", "-c", "sleep 1000 & echo $!; wait"]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, text=True) as made:
        yield made
        made.kill()


async def test_a_command_whose_beginning_is_refused_is_not_started(
    script: Script, docker: DockerEngine
) -> None:
    script.on(f"POST containers/{CONTAINER}/exec", says(201, {"Id": COMMAND}))
    told: list[str] = []

    def refuses(exec_id: str) -> None:
        told.append(exec_id)
        raise MemoryError

    with pytest.raises(MemoryError):
        await docker.exec(CONTAINER, ("x",), tty=False, stdin=False, begins=refuses)

    assert [COMMAND] == told
    assert 0 == script.count(f"POST exec/{COMMAND}/start")


@pytest.mark.parametrize("listed", [True, False])
async def test_a_command_that_is_about_to_begin_is_ended_with_all_that_it_has_started(
    script: Script,
    docker: DockerEngine,
    process: subprocess.Popen[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    listed: bool,
) -> None:
    monkeypatch.setattr(execs, "_CHILDREN_ARE_LISTED", listed)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    script.on(
        LOOK,
        says(200, seen()),
        says(200, seen(running=True)),
        says(200, seen(running=True, pid=process.pid)),
    )

    await docker.end_exec(COMMAND)

    assert -signal.SIGKILL == await asyncio.to_thread(process.wait, 10)
    assert "" == await asyncio.to_thread(process.stdout.read), f"{child} has the pipe too"


async def test_a_command_is_ended_without_a_look_at_what_others_run(
    script: Script,
    docker: DockerEngine,
    process: subprocess.Popen[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execs, "_everybodys_children", None)
    script.on(LOOK, says(200, seen(running=True, pid=process.pid)))

    await docker.end_exec(COMMAND)

    assert -signal.SIGKILL == await asyncio.to_thread(process.wait, 10)


@pytest.mark.parametrize("code", [0, 137])
async def test_a_command_that_has_ended_is_left_alone(
    script: Script, docker: DockerEngine, process: subprocess.Popen[str], code: int
) -> None:
    script.on(LOOK, says(200, seen(pid=process.pid, code=code)))

    await docker.end_exec(COMMAND)

    assert process.poll() is None


async def test_a_command_that_nobody_has_started_has_ended(
    script: Script, docker: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execs, "_BEGINS_WITHIN_S", 0.0)
    script.on(LOOK, says(200, seen()))

    await docker.end_exec(COMMAND)

    assert 1 == script.count(LOOK)


async def test_a_command_whose_first_process_is_not_told_may_run_on(
    script: Script, docker: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execs, "_BEGINS_WITHIN_S", 0.0)
    script.on(LOOK, says(200, seen(running=True)))

    with pytest.raises(Unavailable, match="neither begins nor ends"):
        await docker.end_exec(COMMAND)


@pytest.mark.parametrize("answer", [says(500, "no"), breaks()])
async def test_a_command_of_which_the_engine_does_not_tell_may_run_on(
    script: Script, docker: DockerEngine, answer: Any
) -> None:
    script.on(LOOK, answer)

    with pytest.raises(Unavailable):
        await docker.end_exec(COMMAND)
