"""The networks that this agent owns: made, told, removed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final, Never

import structlog

from phalanx_agent.docker.port import Docker, Unavailable
from phalanx_agent.loops.found import is_final
from phalanx_agent.loops.supervise import for_ever
from phalanx_wire.control import NetworkGoal, NetworkReport

_LOG = structlog.get_logger()
BACKOFF_S: Final = (0.2, 15.0)


class Networks:
    """One task per owned network; all networks in parallel."""

    def __init__(
        self,
        docker: Docker,
        tell: Callable[[NetworkReport], None],
        forget: Callable[[str], None],
        made: Callable[[], None],
        warn: Callable[[str, tuple[str, ...]], None],
    ) -> None:
        """Args:
        made: called when the id of a network has become known, or is no more.
        warn: takes what an operator should know, as `Board.warn`.
        """
        self._docker = docker
        self._warn = warn
        self._tell = tell
        self._forget = forget
        self._made = made
        self._holders: dict[str, tuple[_Holder, asyncio.Task[Never]]] = {}

    def engine_id(self, name: str) -> str:
        """The engine's id of an owned network; empty while it is not made."""
        held = self._holders.get(name)
        return held[0].engine_id if held else ""

    def take(self, goals: tuple[NetworkGoal, ...], tasks: asyncio.TaskGroup) -> None:
        """Take the manager's orders; what is not named any more is forgotten."""
        for goal in goals:
            name = goal.network.name
            held = self._holders.get(name)
            if held is not None:
                held[0].aim_at(goal)
                continue
            warn = partial(self._warn, name)
            holder = _Holder(goal, self._docker, self._tell, self._made, warn)
            holder.announce()
            task = tasks.create_task(for_ever("network", holder.run))
            self._holders[name] = (holder, task)
        for name in self._holders.keys() - {goal.network.name for goal in goals}:
            _, task = self._holders.pop(name)
            task.cancel()
            self._forget(name)
            self._warn(name, ())


class _Holder:
    """Brings one network to be, or to be no more."""

    def __init__(
        self,
        goal: NetworkGoal,
        docker: Docker,
        tell: Callable[[NetworkReport], None],
        made: Callable[[], None],
        warn: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._warn = warn
        self.engine_id = ""
        self._goal = goal
        self._docker = docker
        self._tell = tell
        self._made = made
        self._bell = asyncio.Event()

    def aim_at(self, goal: NetworkGoal) -> None:
        if goal.present != self._goal.present:
            self._goal = goal
            self.announce()
            self._bell.set()

    def announce(self) -> None:
        """Say at once that it is not gone yet, lest silence be taken for that."""
        if not self._goal.present:
            name, problem = self._goal.network.name, "It is being removed."
            self._tell(NetworkReport(name, self.engine_id, problem))

    async def run(self) -> None:
        """Reach the goal, then wait for another one."""
        tries = 0
        while True:
            self._bell.clear()
            wait_s: float | None = None
            try:
                await self._reach()
                tries = 0
            except Unavailable as error:
                tries += 1
                wait_s = self._failed(error, tries)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._bell.wait()

    async def _reach(self) -> None:
        goal = self._goal
        if goal.present and not self.engine_id:
            self.engine_id = await self._docker.create_network(
                goal.session, goal.attempt, goal.network
            )
            _LOG.info("network.made", network=goal.network.name)
            self._made()
        elif not goal.present:
            made = self.engine_id or await self._find()
            if made:  # else it could never be made
                await self._docker.remove_network(made)
            self.engine_id = ""
            self._warn(())
            _LOG.info("network.removed", network=goal.network.name)
        self._tell(NetworkReport(goal.network.name, self.engine_id))

    async def _find(self) -> str:
        """The id after a restart of the agent; the goal's own where it is not there any more."""
        name = self._goal.network.name
        for network in (await self._docker.inventory()).networks:
            if network.name == name:
                return network.id
        return self._goal.network.engine_id

    def _failed(self, error: Unavailable, tries: int) -> float | None:
        shortest, longest = BACKOFF_S
        final = self._goal.present and is_final(error, tries)
        _LOG.warning(
            "network.unavailable", network=self._goal.network.name, why=str(error), final=final
        )
        self._tell(
            NetworkReport(self._goal.network.name, self.engine_id, problem=str(error), final=final)
        )
        if not self._goal.present and error.kind == "answered":
            self._warn((_stays(self._goal.network.name, error),))
        return None if final else min(shortest * 2 ** min(tries - 1, 16), longest)


def _stays(name: str, error: Unavailable) -> str:
    """Say what its ended session does not tell any more."""
    return (
        f"Network {name} of an ended session stays, and its addresses with it: {error.hint} Is a "
        f"container of somebody else on it? `docker network inspect -v {name}` shows who is; it is "
        "tried again."
    )
