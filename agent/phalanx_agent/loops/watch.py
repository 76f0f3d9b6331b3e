"""Keeps the fleet's picture of the engine true: events ring bells, listings are the truth."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Never

import structlog

from phalanx_agent.docker.port import Broke, EngineEvent, Inventory, Reopened, Unavailable
from phalanx_agent.host.remains import RemainsStay
from phalanx_agent.loops.board import Board
from phalanx_agent.loops.converge import Fleet
from phalanx_agent.loops.leftovers import STAYS_S, Leftovers
from phalanx_agent.loops.workshop import Workshop
from phalanx_wire.control import Engine, Goals, Stray

_LOG = structlog.get_logger()
LIST_EVERY_S: Final = 30.0
RETRY_S: Final = (0.2, 5.0)


class Watch:
    """Two loops over one engine.

    Attributes:
        bell: asks for a listing.
    """

    def __init__(
        self,
        workshop: Workshop,
        fleet: Fleet,
        board: Board,
        reopened: Callable[[], None] = lambda: None,
    ) -> None:
        """Args: reopened: called when the engine is there (again)."""
        self._workshop = workshop
        self._reopened = reopened
        self._fleet = fleet
        self._board = board
        self.bell = asyncio.Event()
        self._unclaimed: frozenset[Stray] = frozenset()
        self._leftovers = Leftovers(workshop.docker, workshop.clock, workshop.run_folder)

    async def events(self) -> None:
        """Follow the engine's events, for ever."""
        async for event in self._workshop.docker.events():
            match event:
                case EngineEvent():
                    self._fleet.happened(event)
                case Broke():
                    self._workshop.engine_went()
                    self.bell.set()
                case Reopened():
                    self._leftovers.engine_is_back()
                    self._reopened()
                    self.bell.set()

    async def listings(self) -> Never:
        """List all that is ours at the start, whenever events may have been missed, and now and
        then anyway.
        """
        shortest, longest = RETRY_S
        retry_s = shortest
        while True:
            self.bell.clear()
            try:
                await self._list()
                wait_s = STAYS_S if await self._leftovers.look() else LIST_EVERY_S
                retry_s = shortest
            except Unavailable as error:
                _LOG.warning("engine.unavailable", why=str(error))
                self._board.engine(Engine(problem=str(error)))
                wait_s, retry_s = retry_s, min(retry_s * 2, longest)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.bell.wait()

    async def leave_clean(self) -> None:
        """Remove what a dead engine has left here: nobody will look for it any more.

        Raises:
            Unavailable: the engine does not answer.
        """
        await self._workshop.know_engine(anew=True)
        await self._leftovers.clear()

    async def _list(self) -> None:
        facts = await self._workshop.know_engine(anew=True)
        await self._workshop.have_egress()
        inventory = await self._workshop.docker.inventory()
        self._fleet.listed(inventory)
        self._board.engine(Engine(facts.version, facts.api, facts.problem))
        if self._fleet.goals is not None:
            self._judge_strays(inventory, self._fleet.goals)
            await self._clear_files(inventory)

    def _judge_strays(self, inventory: Inventory, goals: Goals) -> None:
        """What two listings in a row show and no goal claims; one alone may be on its way out."""
        networks = {gang.network.name for gang in goals.gangs}
        networks |= {goal.network.name for goal in goals.networks}
        found = {
            Stray("container", facts.name)
            for facts in inventory.containers
            if not self._fleet.claims(facts.kernel)
        } | {
            Stray("network", facts.name)
            for facts in inventory.networks
            if facts.driver == "bridge" and facts.name not in networks  # an overlay has an owner
        }
        told = frozenset(found) & self._unclaimed
        self._unclaimed = frozenset(found)
        self._board.strays(tuple(sorted(told, key=lambda stray: (stray.kind, stray.name))))

    async def _clear_files(self, inventory: Inventory) -> None:
        """Material that nobody claims and no container uses is provably done with, once nothing of
        the container runs that was started with it.
        """
        used, scratch = {facts.kernel for facts in inventory.containers}, self._workshop.scratch
        for kernel in scratch.kernels() - used:
            if self._fleet.claims(kernel):
                continue
            try:
                if container_id := scratch.begun(kernel):
                    await self._workshop.end_remains(container_id)
            except RemainsStay as error:
                _LOG.warning("files.stay", kernel=kernel, why=str(error))
            else:
                _LOG.info("files.cleared", kernel=kernel)
                scratch.clear(kernel)
