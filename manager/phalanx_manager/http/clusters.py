"""Named pools of agents: made, shown, waited for, removed."""

from __future__ import annotations

from typing import Final

import structlog
from aiohttp import web

from phalanx_manager.core import clusters
from phalanx_manager.core.model import Cluster, Removal
from phalanx_manager.http.ask import Ask, answer
from phalanx_manager.http.problems import not_found, refusal, refused, shown
from phalanx_wire.ids import ClusterName
from phalanx_wire.names import is_cluster_name
from phalanx_wire.pools import ClusterList, ClusterView, CreateCluster

MAX_WAIT_S: Final = 300.0

log = structlog.get_logger(__name__)


async def create(ask: Ask) -> web.Response:
    """Make a cluster; agents come by join tokens that name it."""
    wish = await ask.body(CreateCluster)
    if not is_cluster_name(wish.name):
        raise refused(
            "invalid_field",
            400,
            f"name: {shown(wish.name)} is no name of a cluster",
            "name",
            "lower case letters and digits, single hyphens between them, at most 63 characters",
        )
    now = ask.doors.clock.now()
    made = Cluster(ClusterName(wish.name), now, ask.caller.user)
    no = await ask.doors.store.add_cluster(made, reuse=wish.reuse_name)
    if no is not None:
        raise refusal(no)
    log.info("cluster.created", cluster=made.name, user=ask.caller.user)
    return answer(await _shown(ask, made.name), 201, Location=f"/v1/clusters/{made.name}")


async def listing(ask: Ask) -> web.Response:
    """List the clusters by name; those that are gone on request."""
    store, now = ask.doors.store, ask.doors.clock.now()
    snapshot = await store.load()
    every = await store.clusters()
    found = [one for one in every if one.removed_at is None or ask.values.get("all")]
    return answer(ClusterList(tuple(clusters.view(snapshot, one, now) for one in found)))


async def show(ask: Ask) -> web.Response:
    """Show one, also one that is gone."""
    return answer(await _shown(ask, (await named(ask)).name))


async def remove(ask: Ask) -> web.Response:
    """Order a cluster's end; again, nothing changes but that force may be added."""
    cluster = await named(ask)
    if cluster.name == clusters.DEFAULT:
        hint = "stop its sessions; take its hosts out with `phalanx node drain`"
        raise refused("cluster_default", 409, "cluster default is always there", hint=hint)
    store, force = ask.doors.store, bool(ask.values.get("force"))
    by_force = " by force" if force else ""
    text = f"{ask.caller.user} removes cluster {cluster.name}{by_force}"
    removal = Removal(ask.doors.clock.now(), ask.caller.user, force)
    if await store.remove_cluster(cluster.name, removal, text):
        log.info("cluster.deleting", cluster=cluster.name, user=ask.caller.user, force=force)
        left = clusters.abandoned(await store.load(), await named(ask))
        if left:
            await store.cluster_left(cluster.name, left)
    return answer(await _shown(ask, cluster.name), 202)


async def wait(ask: Ask) -> web.Response:
    """Answer when so many agents are ready, or all is gone; or after the time."""
    cluster = await named(ask)
    until, wanted = ask.values.get("until", "ready"), ask.values.get("nodes", 1)
    clock = ask.doors.clock
    end = clock.monotonic_s() + ask.values.get("timeout_s", 30.0)
    with ask.turnstile.stream(ask.caller), ask.doors.chimes.watch(None) as bell:
        view = await _shown(ask, cluster.name)
        while not _reached(view, until, wanted):
            left = end - clock.monotonic_s()
            if left <= 0 or not await bell.wait(left):
                break
            view = await _shown(ask, cluster.name)
    return answer(await _shown(ask, cluster.name))


async def named(ask: Ask) -> Cluster:
    """Find the cluster that the path names."""
    name = ask.request.match_info["name"]
    found = await ask.doors.store.cluster(name)
    if found is None:
        raise not_found("cluster", name)
    return found


def _reached(view: ClusterView, until: str, wanted: int) -> bool:
    if until == "ready":
        return len(view.ready) >= wanted or view.state in ("deleting", "deleted")
    return view.state == "deleted"


async def _shown(ask: Ask, name: ClusterName) -> ClusterView:
    store = ask.doors.store
    found = await store.cluster(name)
    if found is None:
        raise not_found("cluster", name)
    return clusters.view(await store.load(), found, ask.doors.clock.now())
