"""Tasks: they hear signals, and leave nothing behind."""

from __future__ import annotations

import asyncio
import signal
from collections import deque

import pytest

from phalanx_agent.docker.port import ContainerFacts
from phalanx_agent.loops import tasks as module
from phalanx_wire.ids import KernelId, SessionId
from tests.support.fake_engine import FakeEngine, FakeExec
from tests.support.task_processes import FakeProcess, FakeProcesses, tasks_of

KERNEL = KernelId("abcdefghijkl-1-0")
STUBBORN = frozenset({int(signal.SIGTERM)})


class Stage:
    """A host with one task, whose first process is 7."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.processes = FakeProcesses()
        self.first = self.processes.by_pid[7] = FakeProcess()
        self.session = FakeExec(deque(), number=7)
        self.tasks = tasks_of(self.engine, self.processes)

    async def start(self, _mark: str) -> FakeExec:
        return self.session


async def test_a_signal_reaches_a_task_that_runs_and_one_that_is_about_to() -> None:
    stage = Stage()

    async with asyncio.timeout(5), stage.tasks.task(KERNEL, stage.start) as (task, session):
        early = stage.tasks.signal(KERNEL, signal.SIGUSR1)
        async with asyncio.TaskGroup() as group:
            group.create_task(task.follow(session))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            stage.tasks.signal(KERNEL, signal.SIGUSR1)
            stage.first.over.set()
    late = stage.tasks.signal(KERNEL, signal.SIGUSR1)

    assert (1, 0) == (early, late)
    assert [signal.SIGUSR1, signal.SIGUSR1] == stage.first.heard


async def test_what_a_task_has_left_is_ended_gently_then_surely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ENDING_S", 0.0)
    stage = Stage()
    mild, stubborn = FakeProcess(), FakeProcess(STUBBORN)
    stage.processes.left["m0"] = (mild, stubborn)
    stage.first.over.set()

    async with asyncio.timeout(5), stage.tasks.task(KERNEL, stage.start) as (task, session):
        await task.follow(session)

    assert [[signal.SIGTERM], [signal.SIGTERM]] == [mild.heard, stubborn.heard]
    assert ["m0"] == stage.processes.killed
    assert stubborn.over.is_set()


async def test_a_task_whose_asker_has_gone_is_ended() -> None:
    stage = Stage()
    stage.processes.left["m0"] = (stage.first,)

    with pytest.raises(ConnectionError):
        async with asyncio.timeout(5), stage.tasks.task(KERNEL, stage.start):
            raise ConnectionError

    assert [signal.SIGTERM] == stage.first.heard


async def test_kill_is_for_all_that_a_task_has_started() -> None:
    stage = Stage()

    async with stage.tasks.task(KERNEL, stage.start):
        stage.tasks.signal(KERNEL, signal.SIGKILL)

    assert ["m0"] == stage.processes.killed


async def test_what_a_dead_agent_has_left_in_its_containers_is_ended() -> None:
    stage = Stage()
    forgotten = FakeProcess()
    stage.processes.left["other"] = (forgotten,)
    stage.engine.containers["c"] = ContainerFacts(
        "c", "n", KERNEL, SessionId("abcdefghijkl"), 1, "", "running", pid=1
    )

    async with asyncio.timeout(5):
        await stage.tasks.clear()

    assert [signal.SIGTERM] == forgotten.heard
