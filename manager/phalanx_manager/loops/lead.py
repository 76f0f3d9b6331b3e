"""Leads while it may: waits for the lease, keeps it, and steps down when another has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Never

import structlog

from phalanx_manager.clock import Clock
from phalanx_manager.store.leading import Deposed, Lease, Led
from phalanx_manager.store.port import Unavailable

RENEW_S: Final = 2.0
LOOK_S: Final = 1.0
"""How soon a lease that has run out is found; nobody tells of a manager that has died."""

Pause = Callable[[float], Awaitable[None]]

log = structlog.get_logger(__name__)


async def win(lease: Lease, told: Callable[[Led | Unavailable], None], pause: Pause) -> int:
    """Wait until the lead can be had, and take it; the epoch. Whatever stands in the way is told
    when it changes.
    """
    known: str | None = None
    while True:
        found: int | Led | Unavailable
        try:
            found = await lease.take()
        except Unavailable as error:
            found = error
        if isinstance(found, int):
            log.info("lead.won", epoch=found)
            return found
        if str(found) != known:
            known = str(found)
            log.info("lead.stands_by", because=known)
            told(found)
        await pause(LOOK_S)


@dataclass(slots=True)
class Hold:
    """For how long this manager surely leads. Meanwhile nobody else counts how long the agents
    have been silent, so that it may tell them that they are heard.

    Attributes:
        lasts_s: of a lease that is not renewed.
        since_s: at the earliest, by the clock, when it was renewed last.
        why: it was not renewed since, a sentence; mostly empty.
    """

    clock: Clock
    lasts_s: float
    since_s: float
    why: str = ""

    def sure(self) -> bool:
        """Tell whether it is so now."""
        return self.clock.monotonic_s() - self.since_s < self.lasts_s

    def trouble(self) -> str:
        """Say why it may not lead any more: a database that is read may still take no writes."""
        if self.sure():
            return ""
        passed_s = self.clock.monotonic_s() - self.since_s
        return f"the lead was not renewed for {passed_s:.0f} s: {self.why or 'no answer yet'}"


async def keep(lease: Lease, epoch: int, hold: Hold, pause: Pause = asyncio.sleep) -> Never:
    """Renew the lease for as long as nobody else has taken it.

    A database that does not answer is no reason to step down: nobody else can take the lead by
    it, and what is written without the lead does not count. But another manager may be answered.

    Raises:
        Deposed: another manager leads.
    """
    while True:
        await pause(RENEW_S)
        asked_s = hold.clock.monotonic_s()
        try:
            mine = await lease.renew(epoch)
        except Unavailable as error:
            log.warning("lead.not_renewed", epoch=epoch, why=str(error))
            hold.why = str(error)
            continue
        if not mine:
            raise Deposed("the lead", "another manager has taken it")
        hold.since_s, hold.why = asked_s, ""
