"""What is looked after now and then: the host's figures, its guard, and what is kept too long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Final, Never, Protocol

import structlog

from phalanx_agent.config import AgentConfig
from phalanx_agent.host import belongings, inventory, ports, untracked
from phalanx_agent.host.guard import GuardFailed
from phalanx_agent.host.logstore import LogStore
from phalanx_agent.host.uploads import Uploads
from phalanx_agent.loops.board import Board, Routes
from phalanx_agent.loops.converge import Fleet
from phalanx_wire.control import HostNetwork
from phalanx_wire.slots import Slots

_LOG = structlog.get_logger()
HOST_EVERY_S: Final = 30.0
GUARD_EVERY_S: Final = 20.0
GUARD_RETRY_S: Final = 5.0
TIDY_EVERY_S: Final = 600.0


class HostFigures:
    """Tells what the host offers; networks come and go, so it is looked at again."""

    def __init__(self, config: AgentConfig, address: Callable[[], str], board: Board) -> None:
        self._config = config
        self._address = address
        self._board = board

    def tell(self) -> None:
        """Look once."""
        self._board.hinder("files", self._lost())
        self._board.warn("connections", untracked.crowded())
        capacity, gpus, address = self._config.capacity, inventory.gpus(), self._address()
        self._board.host(
            Slots(
                cpu_milli=capacity.cpu_milli or inventory.cpu_milli(),
                mem_bytes=capacity.mem_bytes or inventory.mem_bytes(),
                gpu=len(gpus),
                pids=capacity.pids or inventory.pids(),
            ),
            address,
            gpus,
            Routes(inventory.addresses(), inventory.subnets(), self._host_network(address)),
        )

    def _lost(self) -> str:
        gone = belongings.missing(self._config.state_dir, self._config.runtime_dir)
        if not gone:
            return ""
        return (
            f"{gone} was removed while the agent ran; restart the agent, which makes anew what it "
            "needs. Without its manager.json and agent.key it asks for a join token then."
        )

    def _host_network(self, address: str) -> HostNetwork | None:
        """Offer the host's network where the operator allows it and it can be kept right."""
        if not self._config.host_network or not address:
            return None
        wanted = self._config.host_ports
        interface = inventory.interface_of(address)
        why = ports.keep(wanted)
        if not interface:
            why = f"its address {address} is on none of its interfaces."
        refused = (f"Containers can't be on this host's network: {why}",) if why else ()
        self._board.warn("host-network", refused)
        return None if why else HostNetwork(interface, wanted.first, wanted.last)

    async def run(self) -> Never:
        """Look for ever."""
        while True:
            self.tell()
            await asyncio.sleep(HOST_EVERY_S)


class Rules(Protocol):
    """The host's firewall rules, as `host.guard.Guard` sets them."""

    async def keep(self, guarded: Iterable[str]) -> None:
        """Have them in force. Raises `GuardFailed`."""


class GuardLoop:
    """Keeps the guard's rules in force. While they are not, no work is taken."""

    def __init__(self, guard: Rules, hinder: Callable[[str], None]) -> None:
        """Args: hinder: told why no work can be taken; empty when it can."""
        hinder("Its firewall rules are not in force yet.")
        self._guard = guard
        self._hinder = hinder
        self._guarded: tuple[str, ...] | None = None
        self._bell = asyncio.Event()

    def take(self, guarded: tuple[str, ...]) -> None:
        """Take the addresses that containers must not reach."""
        if guarded != self._guarded:
            self._guarded = guarded
            self._bell.set()

    def look_again(self) -> None:
        """An engine that comes up puts its own rules before those that it finds."""
        self._bell.set()

    async def run(self) -> Never:
        """Set the rules at the start, when addresses change, and when somebody has dropped them."""
        while True:
            self._bell.clear()
            wait_s = GUARD_EVERY_S
            try:
                await self._guard.keep(self._guarded or ())
                self._hinder("")
            except GuardFailed as error:
                _LOG.error("guard.failed", why=str(error))
                self._hinder(str(error))
                wait_s = GUARD_RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._bell.wait()


async def tidy(logs: LogStore, uploads: Uploads, fleet: Fleet) -> Never:
    """Remove old output, and archives that nobody here needs any more, for ever."""
    while True:
        await asyncio.sleep(TIDY_EVERY_S)
        logs.forget_old(time.time())
        if fleet.goals is not None:
            wanted = {kernel.upload for kernel in fleet.goals.kernels if kernel.upload}
            uploads.forget_all_but(wanted)
