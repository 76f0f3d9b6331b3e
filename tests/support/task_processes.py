"""Processes of tasks without processes."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from phalanx_agent.docker.port import Docker
from phalanx_agent.loops.tasks import Tasks


class FakeProcess:
    """A process that ends by the signals it does not `ignore`."""

    def __init__(self, ignores: frozenset[int] = frozenset({signal.SIGUSR1})) -> None:
        self.ignores = ignores
        self.heard: list[int] = []
        self.over = asyncio.Event()

    def signal(self, number: int) -> bool:
        if self.over.is_set():
            return False
        self.heard.append(number)
        if number not in self.ignores:
            self.over.set()
        return True

    async def ended(self) -> None:
        await self.over.wait()

    def close(self) -> None:
        """Nothing is held."""


class FakeProcesses:
    """A host's processes by number, and by mark those that a task has left."""

    def __init__(self) -> None:
        self.by_pid: dict[int, FakeProcess] = {}
        self.left: dict[str, tuple[FakeProcess, ...]] = {}
        self.killed: list[str] = []

    def hold(self, pid: int) -> FakeProcess | None:
        return self.by_pid.get(pid)

    @contextmanager
    def marked(self, mark: str) -> Iterator[tuple[FakeProcess, ...]]:
        yield tuple(one for one in self.left.get(mark, ()) if not one.over.is_set())

    def marks_beside(self, pid: int) -> frozenset[str]:
        return frozenset(self.left) if pid else frozenset()

    def kill_marked(self, mark: str) -> None:
        self.killed.append(mark)
        for one in self.left.get(mark, ()):
            one.over.set()


def tasks_of(docker: Docker, processes: FakeProcesses | None = None) -> Tasks:
    """Make the tasks of an agent; their marks are m0, m1, ..."""
    count = itertools.count()
    return Tasks(docker, processes or FakeProcesses(), lambda: f"m{next(count)}")
