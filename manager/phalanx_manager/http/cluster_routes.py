"""The rows of the table that speak of clusters; see `routes`."""

from __future__ import annotations

from typing import Final

from phalanx_manager.http import clusters, events
from phalanx_manager.http.ask import Route
from phalanx_manager.http.params import choice, flag, seconds, whole
from phalanx_wire.pools import ClusterList, ClusterView, CreateCluster

_CLUSTER: Final = "/v1/clusters/{name}"

CLUSTERS: Final = (
    Route(
        "POST",
        "/v1/clusters",
        clusters.create,
        "Make a named pool of agents.",
        ClusterView,
        scope="admin",
        body=CreateCluster,
        status=201,
    ),
    Route(
        "GET",
        "/v1/clusters",
        clusters.listing,
        "List the pools of agents.",
        ClusterList,
        params=(flag("all", "also those that are gone"),),
    ),
    Route("GET", _CLUSTER, clusters.show, "Show a cluster, also one that is gone.", ClusterView),
    Route(
        "DELETE",
        _CLUSTER,
        clusters.remove,
        "End a cluster's sessions, let its agents take away what they have made, then forget them "
        "and it. There is no way back; what was not waited for is in `leaves`.",
        ClusterView,
        scope="admin",
        params=(flag("force", "do not wait for agents that are away"),),
        status=202,
    ),
    Route(
        "GET",
        f"{_CLUSTER}/wait",
        clusters.wait,
        "Answer when enough of its agents are ready, or when it is gone; or after the time.",
        ClusterView,
        params=(
            choice("until", "what to wait for; ready when left out", ("ready", "removed")),
            whole("nodes", "so many agents are ready; 1 when left out", 1, 10_000),
            seconds("timeout_s", "how long; 30 when left out", clusters.MAX_WAIT_S),
        ),
    ),
    Route(
        "GET",
        f"{_CLUSTER}/events",
        events.of_cluster,
        "Tell what happens in a cluster: to its sessions, its agents and itself. Who is no admin "
        "hears of own sessions only.",
        "event-stream",
        params=(
            flag("follow", "with a stream: go on until the cluster is gone; 1 when left out"),
            whole("after", "only later events than this id", 0, 999_999_999),
            whole("limit", "of a list: at most so many", 1, 10_000),
        ),
        headers={"Last-Event-ID": "the id of the last event that was received"},
    ),
)
