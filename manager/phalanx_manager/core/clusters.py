"""Clusters: what they are now, and what is next for one that is being removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from phalanx_manager.core.explain import agent_state, kernel_event, nobody
from phalanx_manager.core.model import (
    AgentRecord,
    Cluster,
    Kernel,
    Refusal,
    Removal,
    SessionRow,
    Snapshot,
    Stop,
    StopCause,
)
from phalanx_manager.core.observe import Changes, KernelChange, NetworkChange, moved
from phalanx_wire import names
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.ids import AgentId, ClusterName, SessionId
from phalanx_wire.lifecycle import KernelState, Owner
from phalanx_wire.pools import ClusterState, ClusterView

DEFAULT = ClusterName("default")


@dataclass(frozen=True, slots=True)
class Farewell:
    """An agent that can be forgotten now.

    Attributes:
        clean: it has taken all away that we had made on its host.
    """

    agent: AgentId
    cluster: ClusterName
    clean: bool


@dataclass(frozen=True, slots=True)
class Steps:
    """What can be done now for the clusters that are being removed; each may be done again.

    Attributes:
        abandoned: what stays on hosts of agents that are not waited for, to be noted first.
        let_go: what those held.
        over: clusters of which nothing is left.
    """

    stops: tuple[tuple[SessionId, Stop], ...] = ()
    abandoned: Mapping[ClusterName, tuple[str, ...]] = field(default_factory=dict)
    let_go: Changes = field(default_factory=Changes)
    farewells: tuple[Farewell, ...] = ()
    over: tuple[ClusterName, ...] = ()


def closed(clusters: Mapping[ClusterName, Cluster], name: str) -> Refusal | None:
    """Say why a cluster takes no session and no agent; None when it does."""
    known = clusters.get(ClusterName(name))
    if known is None:
        there = ", ".join(sorted(clusters))
        title = f"there is no cluster {name}"
        hint = f"there are: {there}; make it with `phalanx cluster create {name}`"
        return Refusal("cluster_unknown", 422, title, "cluster", hint)
    if known.removal is not None:
        title = f"cluster {name} is being removed"
        return Refusal("cluster_deleting", 409, title, "cluster", "name another")
    return None


def next_steps(snapshot: Snapshot, now: datetime) -> Steps:
    """Find what brings the clusters that are being removed nearer to their end: first their
    sessions end, then their agents take all away, then these are forgotten, then they are.
    """
    ending = {name: one for name, one in snapshot.clusters.items() if one.removal is not None}
    if not ending:
        return Steps()
    stops = tuple(
        (row.session.id, stop)
        for row in snapshot.sessions.values()
        if (stop := _stop(ending.get(row.session.cluster), row, now)) is not None
    )
    kernels: list[KernelChange] = []
    networks: list[NetworkChange] = []
    farewells: list[Farewell] = []
    busy = {row.session.cluster for row in snapshot.sessions.values()}
    for record in snapshot.agents.values():
        cluster = ending.get(record.cluster)
        if cluster is None or cluster.removal is None:
            continue
        busy.add(record.cluster)
        if (why := _lets_go(record, force=cluster.removal.force)) is not None:
            kernels.extend(_kernels_of(snapshot, record.name, why, now))
            networks.extend(_networks_of(snapshot, record.name))
        if not holds(snapshot, record.name):
            farewells.extend(_farewell(record, force=cluster.removal.force))
    over = tuple(name for name in ending if name not in busy)
    noted = {name: found for name, one in ending.items() if (found := abandoned(snapshot, one))}
    let_go = Changes(tuple(kernels), tuple(networks))
    return Steps(stops, noted, let_go, tuple(farewells), over)


def abandoned(snapshot: Snapshot, cluster: Cluster) -> tuple[str, ...]:
    """Say what stays on the hosts of agents that a removal by force does not wait for; what was
    noted of a host before is not said again.
    """
    if cluster.removal is None or not cluster.removal.force:
        return ()
    return tuple(
        _left_on(snapshot, record)
        for record in snapshot.agents.values()
        if record.cluster == cluster.name
        and not record.connected
        and not any(one.startswith(f"on {record.name}:") for one in cluster.leaves)
    )


def holds(snapshot: Snapshot, agent: AgentId) -> bool:
    """Tell whether an agent may have something of a session on its host."""
    return any(
        any(kernel.agent == agent and kernel.holds for kernel in row.kernels) or _owns(row, agent)
        for row in snapshot.rows()
    )


def shall_leave(snapshot: Snapshot, agent: AgentId) -> bool:
    """Tell whether an agent shall take all away that we have made on its host."""
    record = snapshot.agents.get(agent)
    cluster = snapshot.clusters.get(record.cluster) if record is not None else None
    if cluster is None or cluster.removal is None:
        return False
    return agent != _last_of_swarm(snapshot, cluster, cluster.removal) and not holds(
        snapshot, agent
    )


def leaving(snapshot: Snapshot) -> frozenset[AgentId]:
    """List the agents of clusters that are being removed."""
    return frozenset(
        record.name
        for record in snapshot.agents.values()
        if record.cluster in snapshot.clusters
        and snapshot.clusters[record.cluster].removal is not None
    )


# ---------------------------------------------------------------- what is shown


def view(snapshot: Snapshot, cluster: Cluster, now: datetime) -> ClusterView:
    """Show a cluster; what it is follows from its agents and sessions."""
    members = sorted(
        (one for one in snapshot.agents.values() if one.cluster == cluster.name),
        key=lambda one: one.name,
    )
    ready = tuple(one.name for one in members if agent_state(one, now)[0] == "ready")
    alive = tuple(
        row.session.name
        for row in snapshot.sessions.values()
        if row.session.cluster == cluster.name and row.session.state not in ENDED_STATES
    )
    state, reason = _state(snapshot, cluster, members, now)
    if cluster.removed_at is not None:
        members, ready, alive = [], (), ()
    names_ = tuple(one.name for one in members)
    return ClusterView(
        cluster.name, state, reason, cluster.created_at, names_, ready, alive, cluster.leaves
    )


def _state(
    snapshot: Snapshot, cluster: Cluster, members: list[AgentRecord], now: datetime
) -> tuple[ClusterState, str | None]:
    if cluster.removed_at is not None:
        return "deleted", None
    if cluster.removal is not None:
        return "deleting", _waits_for(snapshot, cluster, members, now)
    if not members:
        return "creating", nobody(members, now)
    if any(agent_state(one, now)[0] == "ready" for one in members):
        return "running", None
    return "unavailable", nobody(members, now)


def _waits_for(
    snapshot: Snapshot, cluster: Cluster, members: list[AgentRecord], now: datetime
) -> str | None:
    """Say what a removal waits for; an agent that is away is what an operator must know of."""
    rows = [row for row in snapshot.sessions.values() if row.session.cluster == cluster.name]
    away = [one for one in members if not one.connected]
    said: list[str] = []
    if rows:
        count = f"{len(rows)} sessions end" if len(rows) > 1 else "1 session ends"
        said.append(f"{count}: {', '.join(row.session.name for row in rows[:5])}")
    if away:
        who = ", ".join(f"{one.name} ({agent_state(one, now)[1] or 'away'})" for one in away[:5])
        hint = f"bring it back, or: phalanx cluster rm {cluster.name} --force"
        said.append(f"away: {who}; {hint}")
    if not said and members:
        said.append(f"agents take away what is theirs: {', '.join(one.name for one in members)}")
    return "; ".join(said) or None


def _left_on(snapshot: Snapshot, record: AgentRecord) -> str:
    containers = [
        names.container_name(row.session.id, row.session.attempt, kernel.host_name)
        for row in snapshot.rows()
        for kernel in row.kernels
        if kernel.agent == record.name and kernel.holds
    ]
    networks = [
        row.session.network.name
        for row in snapshot.rows()
        if row.session.network is not None and _owns(row, record.name)
    ]
    things = [
        f"{kind} {', '.join(found)}"
        for kind, found in (("containers", containers), ("networks", networks))
        if found
    ]
    if record.observed is not None and record.observed.swarm.state == "active":
        things.append("its engine's membership in the swarm")
    things += ["the network phx-egress", "the chains PHALANX-INPUT and PHALANX-FORWARD"]
    return f"on {record.name}: {'; '.join(things)}; and the folders of its agent"


# ---------------------------------------------------------------- inside


def _stop(cluster: Cluster | None, row: SessionRow, now: datetime) -> Stop | None:
    if cluster is None or cluster.removal is None:
        return None
    session = row.session
    ends = session.state in ENDED_STATES or (
        session.stop is not None and session.stop.then == "end"
    )
    if ends and session.kept_until is None:
        return None
    text = f"cluster {cluster.name} is removed by {cluster.removal.by}"
    return Stop(StopCause.USER, text, now, then="end")


def _last_of_swarm(snapshot: Snapshot, cluster: Cluster, removal: Removal) -> AgentId | None:
    """Choose whose engine waits until the others' have left the swarm; None when no other is left
    to wait for. Engines that leave with nobody left to hear of it keep their gossip's port, and are
    of no use in a swarm until they are restarted.
    """
    members = [
        record
        for record in snapshot.agents.values()
        if record.cluster == cluster.name
        and not (record.lost or (removal.force and not record.connected) or _has_left(record))
    ]
    reports = (record.observed for record in members if record.observed is not None)
    there_is_one = any(report.swarm.state != "inactive" for report in reports)
    return max(record.name for record in members) if there_is_one and len(members) > 1 else None


def _lets_go(record: AgentRecord, *, force: bool) -> str | None:
    """Say why what an agent holds is given up; None while it is not."""
    if _has_left(record):  # a session was placed as it was told to: it will never hear of that
        return "its agent has left its host, and its cluster is being removed"
    if force and not record.connected:
        return "its agent is away, and its cluster was removed by force"
    return None


def _has_left(record: AgentRecord) -> bool:
    return record.connected and record.observed is not None and record.observed.left


def _kernels_of(
    snapshot: Snapshot, agent: AgentId, why: str, now: datetime
) -> Iterator[KernelChange]:
    """Give up what an agent holds that is not waited for: first as lost, then as gone."""
    for row in snapshot.rows():
        for kernel in row.kernels:
            if kernel.agent == agent and kernel.holds:
                yield _given_up(kernel, why, now)


def _given_up(kernel: Kernel, why: str, now: datetime) -> KernelChange:
    if kernel.ended:
        step, owner, after = KernelState.REMOVED, Owner.AGENT, kernel
    else:
        step, owner = KernelState.LOST, Owner.LIVENESS
        after = replace(kernel, cause="lost", message=why, detail="")
    after = moved(after, (step,), now)
    return KernelChange(kernel.state, (step,), owner, after, (kernel_event(after, step),))


def _networks_of(snapshot: Snapshot, agent: AgentId) -> Iterator[NetworkChange]:
    for row in snapshot.rows():
        if _owns(row, agent) and row.session.network is not None:
            gone = replace(row.session.network, released=True, problem="")
            yield NetworkChange(row.session.id, row.session.attempt, gone)


def _owns(row: SessionRow, agent: AgentId) -> bool:
    network = row.session.network
    return network is not None and network.owner == agent and not network.released


def _farewell(record: AgentRecord, *, force: bool) -> Iterator[Farewell]:
    if _has_left(record):
        yield Farewell(record.name, record.cluster, clean=True)
    elif force and not record.connected:
        yield Farewell(record.name, record.cluster, clean=False)
