"""Named pools of agents: made, ordered to end, gone."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

from phalanx_manager.core.model import AgentRecord, Cluster, Refusal, Removal
from phalanx_manager.store import rows
from phalanx_manager.store.tables import Settled, Tables, Writes
from phalanx_wire.ids import AgentId, ClusterName


class Clusters(abc.ABC):
    """The part of the store that knows clusters; see `port.Store`."""

    def __init__(self, tables: Tables, on_agent_event: Callable[[], None]) -> None:
        self._tables = tables
        self._on_agent_event = on_agent_event
        self._agents: dict[AgentId, AgentRecord] = {}
        self._clusters: dict[ClusterName, Cluster] = {}
        self._admitting = asyncio.Lock()
        self._last: asyncio.Future[None] | None = None

    async def reload_clusters(self) -> None:
        """Read all."""
        found = map(rows.cluster, await self._tables.read("clusters", {}))
        self._clusters = {one.name: one for one in found}

    def clusters_in_use(self) -> Mapping[ClusterName, Cluster]:
        """Those of which something may be left, by name."""
        return {name: one for name, one in self._clusters.items() if one.removed_at is None}

    async def cluster(self, name: str) -> Cluster | None:
        """See `port.Store`."""
        return self._clusters.get(ClusterName(name))

    async def clusters(self) -> tuple[Cluster, ...]:
        """See `port.Store`."""
        return tuple(self._clusters[name] for name in sorted(self._clusters))

    async def add_cluster(self, cluster: Cluster, *, reuse: bool) -> Refusal | None:
        """See `port.Store`."""
        async with self._alone():
            known = self._clusters.get(cluster.name)
            if known is not None and (known.removed_at is None or not reuse):
                return _taken(known)
            text = f"{cluster.created_by} created cluster {cluster.name}"
            await self._set(cluster, "cluster.created", text, cluster.created_at)
        return None

    async def remove_cluster(self, name: ClusterName, removal: Removal, text: str) -> bool:
        """See `port.Store`."""
        async with self._alone():
            known = self._clusters.get(name)
            if known is None or known.removed_at is not None:
                return False
            first = known.removal
            if first is not None:
                removal = replace(first, force=first.force or removal.force)
            if removal == first:
                return False
            await self._set(replace(known, removal=removal), "cluster.deleting", text, removal.at)
        return True

    async def cluster_left(self, name: ClusterName, leaves: Sequence[str]) -> None:
        """See `port.Store`."""
        async with self._alone():
            known = self._clusters[name]
            more = tuple(dict.fromkeys((*known.leaves, *leaves)))
            if more != known.leaves:
                await self._set(replace(known, leaves=more))

    async def tell_founder(self, name: ClusterName, agent: AgentId) -> None:
        """See `port.Store`."""
        async with self._alone():
            known = self._clusters[name]
            if known.founder != agent:
                await self._set(replace(known, founder=agent))

    async def drop_cluster(self, name: ClusterName, text: str, at: datetime) -> bool:
        """See `port.Store`."""
        async with self._alone():
            known = self._clusters.get(name)
            if known is None or known.removal is None or known.removed_at is not None:
                return False
            if self._has_sessions(name) or any(a.cluster == name for a in self._agents.values()):
                return False
            await self._set(replace(known, removed_at=at), "cluster.deleted", text, at)
        return True

    @abc.abstractmethod
    def _has_sessions(self, cluster: ClusterName) -> bool:
        """Tell whether something may be left of a session of that cluster."""

    async def _set(
        self, cluster: Cluster, kind: str = "", text: str = "", at: datetime | None = None
    ) -> None:
        """Write a cluster's row as a whole; one that ends takes its unused join tokens along."""
        writes = Writes()
        writes.run("cluster_set", rows.cluster_values(cluster))
        if cluster.removal is not None:
            writes.run("tokens_of_cluster_revoke", {"cluster": cluster.name})
        if kind and at is not None:
            tell(writes, at, kind, text, cluster.name)

        def settled(well: bool) -> None:  # noqa: FBT001 - see `tables.Settled`
            if well:
                self._clusters[cluster.name] = cluster

        await self._commit_alone(writes, settled)
        self._on_agent_event()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One decision at a time about clusters and who joins them; it sees all those before it,
        also one whose asker was cut off as it was being committed.
        """
        async with self._admitting:
            if self._last is not None:
                await asyncio.wait({self._last})
            yield

    async def _commit_alone(self, writes: Writes, settled: Settled) -> None:
        """Commit what was decided by `_alone`."""
        self._last = self._tables.commit(writes, settled)
        await asyncio.shield(self._last)

    async def _write(self, name: str, values: Mapping[str, object]) -> None:
        writes = Writes()
        writes.run(name, values)
        await asyncio.shield(self._tables.commit(writes, lambda _: None))


def tell(
    writes: Writes, at: datetime, kind: str, text: str, cluster: ClusterName | None = None
) -> None:
    """Add an event that is of no session."""
    event = {"at": rows.micros(at), "kind": kind, "text": text, "cluster": cluster}
    writes.run("event_add", {**event, "session": None, "rank": None})


def _taken(known: Cluster) -> Refusal:
    if known.removed_at is not None:
        return Refusal(
            "cluster_name_used",
            409,
            f"a cluster {known.name} was removed on {known.removed_at:%Y-%m-%d}; names are not "
            "used again by mistake",
            "name",
            "choose another name, or say --reuse-name (reuse_name)",
        )
    if known.removal is not None:
        return Refusal(
            "cluster_deleting",
            409,
            f"cluster {known.name} is still being removed",
            "name",
            f"wait for it: phalanx cluster rm {known.name} --wait",
        )
    return Refusal(
        "cluster_exists", 409, f"there is a cluster {known.name} already", "name", "choose another"
    )
