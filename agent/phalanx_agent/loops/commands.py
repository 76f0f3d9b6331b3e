"""Plain commands beside the main one: none outlives the agent that runs it.

Nothing in a container tells such a command from what it has started, or from what one before it
has left to go on. So the engine's id of each is noted before it begins, and the next agent asks
the engine for those that are noted still.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol
from weakref import WeakValueDictionary

import structlog

from phalanx_agent.docker.port import Docker, ExecSession, Unavailable
from phalanx_agent.loops.refusal import Refusal

_LOG = structlog.get_logger()

AGAIN_S: Final = 5.0
_BEGUN_AT_ONCE: Final = 2
"""In a container: an engine begins them there one after the other, and nobody takes back what it
was told, so that of thousands none would be left to it whose caller has gone.
"""


class Notes(Protocol):
    """Ids of commands, which outlive this process; `host.command_notes` keeps them."""

    def note(self, exec_id: str) -> None:
        """Note one; it is there when this returns.

        Raises:
            OSError: it cannot be noted.
        """

    def forget(self, exec_id: str) -> None:
        """Take a note away; gone already is fine."""

    def noted(self) -> frozenset[str]:
        """List them."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is to be run; `env` is laid over the container's own."""

    words: tuple[str, ...]
    tty: bool = False
    stdin: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


class Commands:
    """The plain commands of all containers."""

    def __init__(self, docker: Docker, notes: Notes) -> None:
        self._docker = docker
        self._notes = notes
        self._running: set[str] = set()
        self._left = asyncio.Event()
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def begin(
        self,
        container_id: str,
        command: Command,
        wanted: Callable[[], None] = lambda: None,
        begins: Callable[[str], None] | None = None,
    ) -> ExecSession:
        """Start a command when it is its turn, and return when it has begun.

        Args:
            wanted: raises when nobody wants it any more.
            begins: see `Docker.exec`.

        Raises:
            Unavailable: the engine fails.
        """
        turn = self._turns.setdefault(container_id, asyncio.Semaphore(_BEGUN_AT_ONCE))
        async with turn:
            wanted()
            session = await self._docker.exec(
                container_id,
                command.words,
                tty=command.tty,
                stdin=command.stdin,
                env=command.env,
                begins=begins,
            )
            try:
                await session.pid()
            except BaseException:
                await session.kill()
                raise
        return session

    @asynccontextmanager
    async def run(
        self, container_id: str, command: Command, wanted: Callable[[], None] = lambda: None
    ) -> AsyncIterator[ExecSession]:
        """Start a command, see `begin`; at the end of the block it is over, or is ended.

        Raises:
            Refusal: it could not be noted, and was not started.
            Unavailable: the engine fails.
        """
        begun: list[str] = []

        def begins(exec_id: str) -> None:
            self._note(exec_id)
            begun.append(exec_id)

        over = False
        try:
            session = await self.begin(container_id, command, wanted, begins)
            try:
                yield session
                over = True
            finally:
                if not over:
                    await session.kill()
                    over = True
        finally:
            for exec_id in begun:
                self._running.discard(exec_id)
                if over:
                    self._notes.forget(exec_id)
                else:  # nobody knows whether it runs
                    self._left.set()

    def _note(self, exec_id: str) -> None:
        try:
            self._notes.note(exec_id)
        except OSError as error:
            raise Refusal(
                "not_noted",
                f"The command was not started: its agent could not note it ({error.strerror}), "
                "and it would run on if the agent died. Has the host memory left?",
            ) from error
        self._running.add(exec_id)

    async def clear(self) -> None:
        """End what is noted and nobody runs, which an agent that has died here has left, or an
        engine did not end when it was told to; for ever.
        """
        while True:
            self._left.clear()
            left = self._notes.noted() - self._running
            if all(await asyncio.gather(*map(self._end, left))):
                await self._left.wait()
            else:
                await asyncio.sleep(AGAIN_S)

    async def _end(self, exec_id: str) -> bool:
        """Tell whether it certainly runs no more."""
        try:
            await self._docker.end_exec(exec_id)
        except Unavailable as error:
            _LOG.warning("command.left", command=exec_id, why=str(error), again_in_s=AGAIN_S)
            return False
        _LOG.info("command.cleared", command=exec_id)
        self._notes.forget(exec_id)
        return True
