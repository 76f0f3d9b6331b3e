"""Where the link's messages go, and the heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Never

import structlog

from phalanx_agent.loops.board import Board
from phalanx_agent.loops.converge import Fleet
from phalanx_agent.loops.leave import Leaving
from phalanx_agent.loops.streams import Streams
from phalanx_agent.loops.swarm import SwarmMember
from phalanx_wire.control import Goals, Welcome
from phalanx_wire.mux import Stream
from phalanx_wire.stream import Open

_LOG = structlog.get_logger()
FIRST_HEARTBEAT_S: Final = 5.0


class Hub:
    """The agent's `LinkHandler`.

    Attributes:
        leaving: how this agent ends; None where it never does.
    """

    def __init__(
        self,
        board: Board,
        fleet: Fleet,
        swarm: SwarmMember,
        streams: Streams,
        welcome: Callable[[Welcome], None],
        guard: Callable[[tuple[str, ...]], None],
    ) -> None:
        """Args: guard: takes the addresses that containers must not reach."""
        self.leaving: Leaving | None = None
        self._board = board
        self._fleet = fleet
        self._swarm = swarm
        self._streams = streams
        self._welcome = welcome
        self._guard = guard
        self._heartbeat_s = FIRST_HEARTBEAT_S
        self._revision = -1
        self._fresh = asyncio.Event()

    def welcomed(self, welcome: Welcome) -> None:
        """A new connection: its goals are counted anew, and it is told everything."""
        self._revision = -1
        self._heartbeat_s = welcome.heartbeat_s
        self._fleet.lease.goals_current = False
        self._welcome(welcome)
        self._board.answers(-1)
        self._live()
        self._fresh.set()

    def heard(self, number: int) -> None:
        """The manager has heard a beat. Before the first goals of a connection that says nothing of
        any kernel: it may not be among them.
        """
        if self._fleet.lease.heard(number) and self._fleet.lease.goals_current:
            self._fleet.renewed()

    def goals(self, goals: Goals) -> None:
        """Hand the goals out, unless newer ones have come before them."""
        if goals.revision < self._revision:
            _LOG.info("goals.stale", revision=goals.revision, newest=self._revision)
            return
        self._revision = goals.revision
        if self.leaving is not None:
            if self.leaving.begun.is_set():
                return  # it never goes back: nobody is there any more who would make something
            if goals.leave:
                self.leaving.begin()
        self._guard(goals.guarded)
        self._swarm.take(goals.swarm)
        self._fleet.take(goals)
        if not self._fleet.lease.goals_current:
            self._fleet.lease.goals_current = True
            self._fleet.renewed()

    def opened(self, message: Open, stream: Stream) -> None:
        """Serve a stream."""
        self._streams.opened(message, stream)

    def unknown(self, why: str, *, told: bool) -> None:
        """The manager does not know us, by its word or by its door."""
        if self.leaving is not None:
            self.leaving.unknown(why, told=told)

    def disconnected(self) -> None:
        """Nothing changes here: kernels live on while their lease lasts, and all is told at the
        next welcome.
        """

    async def heartbeat(self) -> Never:
        """Say everything now and then, which tells the manager that this agent lives."""
        while True:
            self._fresh.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s):
                    await self._fresh.wait()
                continue
            self._live()

    def _live(self) -> None:
        self._board.beat(self._fleet.lease.beat())
        self._board.leave_now()
