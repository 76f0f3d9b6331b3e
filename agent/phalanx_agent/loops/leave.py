"""The end of an agent: nothing of ours stays on its host, and the manager hears of that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from phalanx_agent.docker.port import Docker, Unavailable

_LOG = structlog.get_logger()
RETRY_S: Final = (1.0, 15.0)


class Leaving:
    """Begins when the manager says so, and never goes back.

    Attributes:
        dismissed: done when this agent is not known any more, with the reason.
    """

    def __init__(
        self,
        docker: Docker,
        others: Callable[[], Awaitable[None]],
        entered_at: Callable[[], float | None],
        told: Callable[[], None],
        complain: Callable[[tuple[str, ...]], None],
    ) -> None:
        """Args:
        others: takes away what is not the engine's: firewall rules and files. Raises OSError.
        entered_at: when we took the engine into its swarm, in Unix seconds; None if it was not we.
        told: called when nothing is left.
        complain: told why something cannot be taken away.
        """
        self.begun = asyncio.Event()
        self.dismissed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._docker = docker
        self._others = others
        self._entered_at = entered_at
        self._told = told
        self._complain = complain
        self._left = False

    def begin(self) -> None:
        """It shall leave."""
        self.begun.set()

    def unknown(self, why: str, *, told: bool) -> None:
        """The manager does not know us: by its word, or because it refuses our key. The latter
        is the end only for who has left, for a manager may be put right.
        """
        if (told or self._left) and not self.dismissed.done():
            self.dismissed.set_result(why)

    async def take_all_away(self) -> None:
        """Take away until it is done; each thing may be gone already."""
        retry_s = RETRY_S[0]
        while not self._left:
            try:
                await self._docker.clear()
                if (entered_at := self._entered_at()) is not None:
                    await self._docker.swarm_leave(entered_at)
                await self._others()
            except (Unavailable, OSError) as error:
                _LOG.warning("leave.unavailable", why=str(error), again_in_s=retry_s)
                self._complain((f"It cannot leave this host clean: {error}",))
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, RETRY_S[1])
            else:
                self._left = True
        _LOG.info("leave.clean")
        self._told()
