"""The host's engine in the swarm that carries networks over several hosts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Never

import msgspec
import structlog

from phalanx_agent.docker.port import Docker, Unavailable
from phalanx_wire.control import SwarmGoal, SwarmReport

_LOG = structlog.get_logger()
LOOK_EVERY_S: Final = 15.0
RETRY_S: Final = (1.0, 15.0)
UNKNOWN: Final = "pending"
"""Docker's word for a member that is not one yet; ours for an engine that did not tell."""


class SwarmMember:
    """Brings the engine into the swarm as told, and tells how it fares there."""

    def __init__(
        self,
        docker: Docker,
        address: Callable[[], str],
        tell: Callable[[SwarmReport], None],
        note: Callable[[], None] = lambda: None,
        entered_at: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Args:
        address: by which the other hosts reach this one.
        note: called before the engine is taken into a swarm.
        entered_at: since when it is by us that it is in one; None if it is not.
        """
        self._note = note
        self._entered_at = entered_at
        self._docker = docker
        self._address = address
        self._tell = tell
        self._goal: SwarmGoal | None = None
        self._bell = asyncio.Event()
        self._report = SwarmReport(state=UNKNOWN)

    def take(self, goal: SwarmGoal | None) -> None:
        """Take the manager's order."""
        if goal != self._goal:
            self._goal = goal
            self._bell.set()

    async def run(self) -> Never:
        """Reach the goal and look now and then: membership breaks without an event."""
        retry_s = RETRY_S[0]
        while True:
            self._bell.clear()
            wait_s = LOOK_EVERY_S
            try:
                self._report = await self._reach()
                retry_s = RETRY_S[0]
            except Unavailable as error:
                _LOG.warning("swarm.unavailable", why=str(error))
                unsure = error.kind == "unknown" and self._report.state == "inactive"
                self._report = msgspec.structs.replace(
                    self._report,
                    state=UNKNOWN if unsure else self._report.state,  # it may have entered
                    problem=str(error),
                    canary_ok=False,
                )
                wait_s, retry_s = retry_s, min(retry_s * 2, RETRY_S[1])
            self._tell(self._report)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._bell.wait()

    async def _reach(self) -> SwarmReport:
        self._report = report = await self._docker.swarm()
        # Not sooner: from here on nothing waits until the manager is told that a swarm may be made,
        # so that it can take a goal back and know, with the answer, that nothing comes of it.
        goal = self._goal
        if goal is not None and goal.action != "keep" and report.state == "inactive":
            self._note()
            if goal.action == "init":
                # Until it is known how this ends nobody else may begin a swarm.
                self._tell(msgspec.structs.replace(report, state=UNKNOWN))
                await self._docker.swarm_init(self._address())
            else:
                await self._docker.swarm_join(self._address(), goal.remotes, goal.token)
            _LOG.info("swarm.entered", action=goal.action)
            self._report = msgspec.structs.replace(report, state=UNKNOWN)
            report = await self._docker.swarm()
        self._report = report
        if goal is None or not goal.canary or not report.control:
            return report
        await self._docker.swarm_canary(ours=self._entered_at() is not None)
        return msgspec.structs.replace(report, canary_ok=True)
