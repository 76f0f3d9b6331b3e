"""What can be asked of a manager about clusters, the named pools of agents."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

from phalanx_client.answers import decode
from phalanx_client.exchange import Exchange
from phalanx_client.patience import FIRST_PAUSE_S
from phalanx_client.transport import Request
from phalanx_wire.api import EventView
from phalanx_wire.pools import ClusterList, ClusterView, CreateCluster

POLL_S = 25.0
"""One long poll; shorter than what proxies cut."""


class Clusters(Exchange):
    """The part of the library that knows clusters."""

    async def create_cluster(self, name: str, *, reuse_name: bool = False) -> ClusterView:
        """Make a pool; hosts join it by tokens of `create_agent_token`."""
        return await self._post("/v1/clusters", CreateCluster(name, reuse_name), ClusterView)

    async def clusters(self, *, gone: bool = False) -> ClusterList:
        """All pools by name, on request also those that are gone."""
        query = [("all", "1")] if gone else []
        return await self._get("/v1/clusters", ClusterList, query)

    async def cluster(self, name: str) -> ClusterView:
        """One pool, also one that is gone."""
        return await self._get(_cluster(name), ClusterView)

    async def remove_cluster(self, name: str, *, force: bool = False) -> ClusterView:
        """Order a pool's end; by force agents that are away are not waited for."""
        query = (("force", "1"),) if force else ()
        return await self._ask(Request("DELETE", _cluster(name), query), ClusterView, repeat=True)

    async def wait_cluster(
        self, name: str, *, nodes: int = 1, removed: bool = False, timeout_s: float = math.inf
    ) -> ClusterView | None:
        """Wait until so many agents of a pool are ready, or until it is gone; None: not in time.

        A pool that is being removed gets no agents any more: it is given back as it is.
        """
        wish = (("until", "removed" if removed else "ready"), ("nodes", str(nodes)))
        left = timeout_s
        while left > 0:
            span = min(left, POLL_S)
            began = time.monotonic()
            query = (*wish, ("timeout_s", f"{span:g}"))
            request = Request("GET", _cluster(name, "/wait"), query, idle_s=span + 15)
            view = await self._ask(request, ClusterView, repeat=True)
            ended = view.state == "deleted" or (view.state == "deleting" and not removed)
            if ended or (not removed and len(view.ready) >= nodes):
                return view
            left -= max(time.monotonic() - began, FIRST_PAUSE_S)
        return None

    async def cluster_events(
        self, name: str, *, follow: bool = False, after: str = ""
    ) -> AsyncGenerator[EventView, None]:
        """What happened in a pool; follows over restarts of the manager until it is gone."""
        query = [("follow", "1" if follow else "0")]
        path = _cluster(name, "/events")
        async with aclosing(self._stream(path, query, after, follow=follow)) as stream:
            async for event in stream:
                yield decode(event.data, EventView)


def _cluster(name: str, rest: str = "") -> str:
    return f"/v1/clusters/{quote(name, safe='')}{rest}"
