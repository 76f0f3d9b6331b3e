"""Tasks of steps: commands that hear their session's signals, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Final, Protocol

import structlog

from phalanx_agent.docker.port import Docker, ExecSession, Unavailable
from phalanx_wire.ids import KernelId

_LOG = structlog.get_logger()

ENDING_S: Final = 3.0
"""Between TERM and KILL of what a task has left, or of one whose asker is gone."""
GONE_S: Final = 5.0
AGAIN_S: Final = 5.0


class Process(Protocol):
    """A process, held; see `host.task_processes.HeldProcess`."""

    def signal(self, number: int) -> bool:
        """Send it a signal; False when it has ended."""

    async def ended(self) -> None:
        """Wait for its end."""

    def close(self) -> None:
        """Let go of it."""


class Processes(Protocol):
    """The processes of this host; `host.task_processes` is it."""

    def hold(self, pid: int) -> Process | None:
        """Hold a process; None when it has ended."""

    def marked(self, mark: str) -> AbstractContextManager[tuple[Process, ...]]:
        """Hold all that have a mark."""

    def marks_beside(self, pid: int) -> frozenset[str]:
        """Tell the marks in the container of a first process."""

    def kill_marked(self, mark: str) -> None:
        """Kill all that have a mark."""


class Task:
    """One task that runs, or is about to."""

    def __init__(self, mark: str, processes: Processes) -> None:
        self.mark = mark
        self._processes = processes
        self._process: Process | None = None
        self._early: list[int] = []
        self._over = False
        self._cleared = False

    def signal(self, number: int) -> None:
        """Send its first process a signal, as soon as there is one; KILL is for all of them."""
        if number == signal.SIGKILL:
            self._processes.kill_marked(self.mark)
        elif self._process is not None:
            self._process.signal(number)
        elif not self._over:
            self._early.append(number)

    async def follow(self, session: ExecSession) -> None:
        """Wait for the end of its first process, then end what that has left."""
        self._process = await self._first(session)
        try:
            if self._process is not None:
                for number in self._early:
                    self._process.signal(number)
                await self._process.ended()
        finally:
            self._over = True
            if self._process is not None:
                self._process.close()
                self._process = None
        await self.end()

    async def _first(self, session: ExecSession) -> Process | None:
        pid = await session.pid()
        process = self._processes.hold(pid) if pid else None
        # Asked again, now that it is held: until then its number may have become another's.
        if process is not None and await session.pid() != pid:
            process.close()
            return None
        return process

    async def end(self) -> None:
        """End all that it has started: TERM, and KILL for what does not hear."""
        if self._cleared:
            return
        await self._end()
        self._cleared = True

    async def _end(self) -> None:
        with self._processes.marked(self.mark) as found:
            for process in found:
                process.signal(signal.SIGTERM)
            if not found or await _all_ended(found, ENDING_S):
                return
        self._processes.kill_marked(self.mark)
        with self._processes.marked(self.mark) as left:
            if not await _all_ended(left, GONE_S):
                _LOG.warning("task.left", mark=self.mark, processes=len(left))


class Tasks:
    """The tasks of all kernels.

    Args of the constructor:
        new_mark: makes a mark that no task has had, on this host or another.
    """

    def __init__(self, docker: Docker, processes: Processes, new_mark: Callable[[], str]) -> None:
        self._docker = docker
        self._processes = processes
        self._new_mark = new_mark
        self._of: dict[KernelId, set[Task]] = {}

    @asynccontextmanager
    async def task(
        self, kernel: KernelId, start: Callable[[str], Awaitable[ExecSession]]
    ) -> AsyncIterator[tuple[Task, ExecSession]]:
        """Start a task with a mark and know it until its end; nothing of it is left after this."""
        task = Task(self._new_mark(), self._processes)
        known = self._of.setdefault(kernel, set())
        known.add(task)
        try:
            yield task, await start(task.mark)
        finally:
            known.discard(task)
            if not known and self._of.get(kernel) is known:
                del self._of[kernel]
            await task.end()

    def signal(self, kernel: KernelId, number: int) -> int:
        """Send all tasks of a kernel a signal; how many there are."""
        tasks = tuple(self._of.get(kernel, ()))
        for task in tasks:
            task.signal(number)
        return len(tasks)

    async def clear(self) -> None:
        """End what tasks of an agent that has died here have left, once."""
        for pid in await self._first_processes():
            known = {task.mark for tasks in self._of.values() for task in tasks}
            for mark in self._processes.marks_beside(pid) - known:
                _LOG.info("task.cleared", mark=mark)
                await Task(mark, self._processes).end()

    async def _first_processes(self) -> list[int]:
        while True:
            try:
                inventory = await self._docker.inventory()
            except Unavailable:
                await asyncio.sleep(AGAIN_S)
            else:
                return [container.pid for container in inventory.containers if container.pid]


async def _all_ended(processes: tuple[Process, ...], within_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            for process in processes:
                await process.ended()
            return True
    return False
