"""Which engines shall form the swarm that carries networks over several hosts.

One swarm per cluster (pool of agents). An engine that somebody put into a swarm before is used if
it is the same swarm for all; we never make one leave.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from phalanx_manager.core.model import AgentRecord, Snapshot
from phalanx_wire.control import SwarmGoal, SwarmReport
from phalanx_wire.ids import AgentId, ClusterName
from phalanx_wire.names import SWARM_MANAGERS

_NO_QUORUM: Final = ("does not have a leader", "most of its managers")
"""What an engine and an agent say of a swarm that has lost too many managers to do anything."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a cluster's swarm is good for now.

    Attributes:
        members: agents whose engines share it.
        owner: the agent that makes networks in it, proved by its canary; None: nobody can.
        joining: agents that are about to become members.
        waits: why no session can span several agents now; empty when it can.
    """

    members: frozenset[AgentId] = frozenset()
    owner: AgentId | None = None
    joining: frozenset[AgentId] = frozenset()
    waits: str = ""


def verdict(snapshot: Snapshot, cluster: ClusterName) -> Verdict:
    """Judge a cluster's swarm by what its agents report."""
    reports = _reports(snapshot, cluster)
    active = {name: report for name, report in reports.items() if report.state == "active"}
    clash = _clash(active)
    if clash:
        return Verdict(waits=clash)
    if not active:
        gone = _lost_members(snapshot, cluster)
        if gone:
            return Verdict(waits=_alone(gone))
        return Verdict(joining=frozenset(reports), waits=_nobody(reports))
    canary = _canary(active)
    outside = [name for name, r in reports.items() if r.state in ("inactive", "pending")]
    joining = frozenset(n for n in _joins(reports, active, outside) if not reports[n].problem)
    if canary is None:
        hosts = ", ".join(sorted(active))
        return Verdict(
            waits=f"no manager of the swarm that {hosts} are in is an agent here; run `docker "
            "swarm leave` there, or add the swarm's manager as an agent",
        )
    if not active[canary].canary_ok:
        problem = active[canary].problem or "its first test network is not made yet"
        waits = f"the swarm on agent {canary} cannot make networks: {problem}"
        if any(words in problem for words in _NO_QUORUM):
            waits += (
                " If they do not come back, run `docker swarm leave --force` on "
                f"{', '.join(sorted(active))}, and the engines form another"
            )
        return Verdict(frozenset(active), None, joining, waits)
    if len(active) < 2:
        return Verdict(frozenset(active), canary, joining, _nobody(reports, but=canary))
    return Verdict(frozenset(active), canary, joining)


def goals(
    snapshot: Snapshot,
    cluster: ClusterName,
    *,
    eager: bool,
    unanswered: Collection[AgentId] = (),
) -> Mapping[AgentId, SwarmGoal]:
    """Tell each agent of a cluster what its engine shall be in the swarm.

    Nothing is asked for until a session waits for several hosts, unless `eager`. While the
    cluster's founder may be making the swarm nobody else is, since two swarms never become one. The
    unanswered have not answered to goals of this process of the manager: they may still do what an
    earlier one has told them.
    """
    reports = _reports(snapshot, cluster)
    active = {name: report for name, report in reports.items() if report.state == "active"}
    if len(reports) < 2 or _clash(active):
        return {}
    canary = _canary(active)
    plan = {name: SwarmGoal("keep", canary=name == canary) for name in active}
    if not eager and not _wanted(snapshot, cluster):
        return plan
    outside = [name for name, r in reports.items() if r.state in ("inactive", "pending", "error")]
    if not active:
        first = _first(snapshot, cluster, reports, outside, unanswered)
        return {first: SwarmGoal("init", canary=True)} if first else {}
    if canary is None:
        return plan
    return plan | _joins(reports, active, outside)


def _first(
    snapshot: Snapshot,
    cluster: ClusterName,
    reports: Mapping[AgentId, SwarmReport],
    outside: Sequence[AgentId],
    unanswered: Collection[AgentId],
) -> AgentId | None:
    """Choose who makes the swarm; nobody while another may have made it: one that is away, or one
    whose engine was asked to and has not answered. The founder may still be at what an earlier
    process of the manager has told it, until it has answered; before founders were noted, so might
    anybody.
    """
    founder = _founder(snapshot, cluster)
    if any(report.state == "pending" for report in reports.values()):
        return None
    if _lost_members(snapshot, cluster):
        return None  # two swarms never become one, and its host may be back
    doubtful = (one for name, one in snapshot.agents.items() if name in unanswered and not one.lost)
    if any(one.cluster == cluster and founder in (None, one.name) for one in doubtful):
        return None
    away = [
        name
        for name, record in snapshot.agents.items()
        if record.cluster == cluster and not record.lost and name not in reports
    ]
    for name in away:
        record = snapshot.agents[name]
        known = record.observed.swarm.state if record.observed is not None else ""
        if name == founder or known in ("active", "pending"):
            return None
    able = [name for name in outside if not reports[name].problem] or outside
    return founder if founder in able else next(iter(able), None)


def _joins(
    reports: Mapping[AgentId, SwarmReport],
    active: Mapping[AgentId, SwarmReport],
    outside: Sequence[AgentId],
) -> dict[AgentId, SwarmGoal]:
    """Let the others join; as managers one at a time, so that their quorum is never in doubt."""
    managers = [report for report in active.values() if report.control]
    remotes = tuple(f"{report.address}:2377" for report in managers if report.address)
    worker = next((report.worker_token for report in managers if report.worker_token), "")
    manager = next((report.manager_token for report in managers if report.manager_token), "")
    if not remotes or not worker:
        return {}
    wanted = SWARM_MANAGERS if len(reports) >= SWARM_MANAGERS else 1
    plan = {name: SwarmGoal("join", worker, remotes) for name in outside}
    if outside and len(managers) < wanted and manager:
        # The others wait for this one where they would be managers too.
        first, rest = outside[0], outside[1 : wanted - len(managers)]
        plan[first] = SwarmGoal("join", manager, remotes)
        for name in rest:
            del plan[name]
    return plan


def _reports(snapshot: Snapshot, cluster: ClusterName) -> dict[AgentId, SwarmReport]:
    """Collect by name what the agents that are there say of their engines."""
    return {
        name: record.observed.swarm
        for name, record in sorted(snapshot.agents.items())
        if _counts(record, cluster) and record.observed is not None
    }


def _counts(record: AgentRecord, cluster: ClusterName) -> bool:
    return (
        record.cluster == cluster
        and record.connected
        and not record.lost
        and record.observed is not None
        and not record.observed.engine.problem
    )


def _founder(snapshot: Snapshot, cluster: ClusterName) -> AgentId | None:
    found = snapshot.clusters.get(cluster)
    return None if found is None else found.founder


def _lost_members(snapshot: Snapshot, cluster: ClusterName) -> list[AgentId]:
    """Find agents that are lost, and whose engine was in the swarm, or was told to make it."""
    founder = _founder(snapshot, cluster)
    return [
        name
        for name, record in sorted(snapshot.agents.items())
        if record.cluster == cluster and record.lost and record.observed is not None
        and (record.observed.swarm.state == "active" or name == founder)
    ]  # fmt: skip


def _alone(gone: Sequence[AgentId]) -> str:
    names = ", ".join(gone)
    return (
        f"the swarm is known to nobody but {names}, which is lost; bring it back, or give it up "
        f"by `phalanx node forget {gone[0]}`"
    )


def _canary(active: Mapping[AgentId, SwarmReport]) -> AgentId | None:
    """Choose who makes networks: the first manager that can, else the first without a problem."""
    managers = [name for name, report in active.items() if report.control]
    return min(
        managers,
        key=lambda name: (not active[name].canary_ok, bool(active[name].problem), name),
        default=None,
    )


def _clash(active: Mapping[AgentId, SwarmReport]) -> str:
    """Find engines in different swarms. A worker's engine does not know its swarm's id."""
    swarms: dict[str, list[str]] = {}
    for name, report in active.items():
        if report.swarm_id:
            swarms.setdefault(report.swarm_id, []).append(name)
    if len(swarms) < 2:
        return ""
    kept = max(swarms, key=lambda swarm: (len(swarms[swarm]), swarm))
    foreign = sorted(name for swarm, hosts in swarms.items() if swarm != kept for name in hosts)
    return (
        "the engines are in different swarms: "
        + " and ".join(f"{', '.join(hosts)} in {swarm[:12]}" for swarm, hosts in swarms.items())
        + f"; run `docker swarm leave --force` on {', '.join(foreign)}"
    )


def _nobody(reports: Mapping[AgentId, SwarmReport], but: AgentId | None = None) -> str:
    problems = [
        f"{name}: {report.problem}"
        for name, report in reports.items()
        if report.problem and name != but
    ]
    if problems:
        return (
            f"the agents' engines could not form a swarm: {'; '.join(problems)}; hosts that share "
            "a session must reach each other at the addresses that `phalanx nodes` shows"
        )
    return "the agents' engines are forming a swarm"


def _wanted(snapshot: Snapshot, cluster: ClusterName) -> bool:
    """Tell whether a session waits that could span hosts; its reason says that it did not fit."""
    return any(
        row.session.cluster == cluster
        and row.session.state == "pending"
        and row.session.reason
        and len(row.kernels) > 1
        and row.session.spec.mode != "single-node"
        for row in snapshot.sessions.values()
    )
