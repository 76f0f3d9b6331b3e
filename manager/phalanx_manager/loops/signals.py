"""Sends the signals that commands hear before they are stopped; at most once each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from phalanx_manager.core.notice import Notice, hearers, recipients
from phalanx_manager.rpc import signals
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.store.port import Store
from phalanx_manager.wake import Bell
from phalanx_wire.lifecycle import KernelState

AGAIN_S: Final = 2.0
SAFETY_NET_S: Final = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Order:
    """A notice, and the rank that has yet to hear it."""

    notice: Notice
    rank: int


class Signals:
    """The signalling loop. What it has yet to send is gone when the manager dies: a signal that
    came twice would be worse than none.
    """

    def __init__(self, store: Store) -> None:
        self.bell = Bell()
        self._store = store
        self._link: signals.Link | None = None
        self._orders: list[_Order] = []
        self._gate = asyncio.Semaphore(signals.AT_ONCE)

    def attach(self, link: signals.Link) -> None:
        """Take the way to the agents; before that nothing is sent."""
        self._link = link

    async def order(self, notice: Notice) -> None:
        """Have a signal sent to all commands of an attempt that run now."""
        row = await self._store.attempt(notice.session, notice.attempt)
        if row is not None:
            self._orders += [_Order(notice, kernel.rank) for kernel in hearers(row, notice.to)]
            self.bell.ring()

    async def turn(self) -> None:
        """Wait for an order, send all at one moment, and keep those whose agent is away."""
        await self.bell.wait(AGAIN_S if self._orders else SAFETY_NET_S)
        orders, self._orders = self._orders, []
        async with asyncio.TaskGroup() as tasks:
            sent = [tasks.create_task(self._send(order)) for order in orders]
        self._orders += _kept(orders, [task.result() for task in sent])

    async def _send(self, order: _Order) -> bool:
        """Send one; False when it may be tried again."""
        notice = order.notice
        row = await self._store.attempt(notice.session, notice.attempt)
        if row is None or row.kernels[order.rank].state is not KernelState.RUNNING:
            return True
        kernel = row.kernels[order.rank]
        to = recipients(row.session, kernel, notice.to)
        if self._link is None or to is None:
            return to is None
        async with self._gate:
            try:
                closed = await signals.send(self._link, kernel, notice.number, to)
            except Unavailable:
                return False
        if closed.code:
            log.warning("signal.not_taken", kernel=kernel.id, code=closed.code, why=closed.why)
        return True


def _kept(orders: Iterable[_Order], sent: Iterable[bool]) -> list[_Order]:
    return [order for order, done in zip(orders, sent, strict=True) if not done]
