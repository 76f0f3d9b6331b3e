"""A daemon's process: it can be killed at every point at which it touches the world."""

from __future__ import annotations

import asyncio
import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, TypeVar

_T = TypeVar("_T")

CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
"""Whose code runs; what it logs is its own."""


class Crash(BaseException):
    """The process is no more. Nothing that it still runs reaches the world."""


class Fate(Protocol):
    """Decides what happens to processes."""

    def strikes(self, process: Process, point: str) -> bool:
        """Tell whether a process dies here."""

    def died(self, process: Process) -> None:
        """Take note of the end of a process."""

    def failed(self, process: Process, error: BaseException) -> None:
        """Take note of a process that has ended by itself, which none may."""


class Process(ABC):
    """One life of a daemon. Its doubles ask `point` before and after each touch of the world.

    Attributes:
        role: `manager` or `agent`; points are counted by it.
        name: of this life, for the trace.
    """

    def __init__(self, role: str, name: str, fate: Fate) -> None:
        self.role = role
        self.name = name
        self.alive = True
        self._fate = fate
        self._root: asyncio.Task[None] | None = None

    def point(self, name: str) -> None:
        """Pass a named point, or die at it.

        Raises:
            Crash: this process is dead, now or already.
        """
        if not self.alive:
            raise Crash(self.name)
        if self._fate.strikes(self, name):
            self.kill()
            raise Crash(f"{self.name} at {name}")

    def kill(self) -> None:
        """End it as SIGKILL does: nothing is tidied up."""
        if not self.alive:
            return
        self.alive = False
        if self._root is not None:
            self._root.cancel()
        self._fate.died(self)

    def inside(self, act: Callable[[_T], None], given: _T) -> None:
        """Call one of its functions from outside, if it lives: what it logs is its own."""
        if self.alive:
            context = contextvars.copy_context()
            context.run(CURRENT.set, self)
            context.run(act, given)

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        """Start living."""
        self._root = tasks.create_task(self._live(), name=self.name)

    @abstractmethod
    async def run(self) -> None:
        """Be the daemon."""

    async def _live(self) -> None:
        CURRENT.set(self)
        try:
            await self.run()
        except BaseException as error:
            if self.alive and not isinstance(error, asyncio.CancelledError):
                self._fate.failed(self, error)
            if isinstance(error, asyncio.CancelledError) and self.alive:
                raise
