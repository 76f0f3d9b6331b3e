"""Brings clusters that are being removed to their end, however often it is interrupted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from phalanx_manager.clock import Clock
from phalanx_manager.core.clusters import Farewell, next_steps
from phalanx_manager.store.port import Store
from phalanx_manager.wake import Bell
from phalanx_wire.ids import AgentId

SAFETY_NET_S: Final = 5.0

log = structlog.get_logger(__name__)

Dismiss = Callable[[AgentId, str], Awaitable[None]]


class Retire:
    """The loop of farewells; ring `bell` when a session, an agent or a cluster has changed.

    The order to remove a cluster is in the database, and each turn does what that asks for now:
    whoever leads goes on with it.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self.bell = Bell()
        self._store = store
        self._clock = clock
        self._dismiss: Dismiss | None = None

    def attach(self, dismiss: Dismiss) -> None:
        """Take the way to tell an agent that it is not known any more."""
        self._dismiss = dismiss

    async def turn(self) -> None:
        """Wait until something may be next, then do it."""
        await self.bell.wait(SAFETY_NET_S)
        store, now = self._store, self._clock.now()
        steps = next_steps(await store.load(), now)
        for session, stop in steps.stops:
            if await store.stop(session, stop):
                log.info("session.stopped", session=session, cause=stop.cause, why=stop.text)
        for cluster, leaves in steps.abandoned.items():
            await store.cluster_left(cluster, leaves)
            log.warning("cluster.leaves", cluster=cluster, leaves=leaves)
        if steps.let_go.kernels or steps.let_go.networks:
            await store.record(steps.let_go.kernels, steps.let_go.networks, now)
        for farewell in steps.farewells:
            await self._bid(farewell)
        for cluster in steps.over:
            if await store.drop_cluster(cluster, f"cluster {cluster} is gone", now):
                log.info("cluster.deleted", cluster=cluster)

    async def _bid(self, farewell: Farewell) -> None:
        """Forget an agent, then tell it: one that was not told finds that it is a stranger."""
        agent, cluster = farewell.agent, farewell.cluster
        how = "has left its host clean" if farewell.clean else "is away, and is not waited for"
        text = f"agent {agent} {how}: it is forgotten with cluster {cluster}"
        await self._store.forget(agent, text, self._clock.now())
        log.info("agent.forgotten", agent=agent, cluster=cluster, clean=farewell.clean)
        if self._dismiss is not None:
            why = f"cluster {cluster} was removed, and this agent with it"
            await self._dismiss(agent, why)
