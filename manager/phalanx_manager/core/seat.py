"""A waiting gang's whole placement: agents, devices, subnet, addresses. All of it or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network

from phalanx_manager.core import address, place, swarm
from phalanx_manager.core.explain import nobody
from phalanx_manager.core.model import NetworkRow, SessionRow, Snapshot
from phalanx_wire import names
from phalanx_wire.ids import AgentId, KernelId, SessionId


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one kernel of a gang shall be."""

    kernel: KernelId
    agent: AgentId
    address: str
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a whole gang shall be: seats in rank order, one network."""

    session: SessionId
    attempt: int
    seats: tuple[Seat, ...]
    network: NetworkRow


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a session waits.

    Attributes:
        blocks: those behind it wait too, so that they do not take what it waits for.
    """

    reason: str
    blocks: bool


def plan(snapshot: Snapshot, row: SessionRow, pool: IPv4Network, now: datetime) -> Placement | Wait:
    """Find a place for a waiting session, or say why it waits."""
    session = row.session
    verdict = swarm.verdict(snapshot, session.cluster)
    offered = place.rooms(snapshot, session.cluster, verdict.members, now)
    if not offered:
        members = (one for one in snapshot.agents.values() if one.cluster == session.cluster)
        return Wait(nobody(members, now), blocks=False)
    request = place.Request.of(session.spec, row.kernels)
    waits = verdict.waits or _joining(request, verdict)
    fit = place.gang(request, offered, waits)
    if isinstance(fit, place.NoFit):
        idle = place.idle_rooms(snapshot.agents[room.agent] for room in offered)
        could = bool(idle) and isinstance(place.gang(request, idle), place.Fit)
        return Wait(fit.reason, blocks=could and not fit.needs_swarm)
    return _seated(snapshot, row, pool, (fit, offered, verdict))


def _joining(request: place.Request, verdict: swarm.Verdict) -> str:
    """Let a session that wants many hosts wait for those that are just joining."""
    if not verdict.joining or (request.mode == "auto" and request.spread == "pack"):
        return ""
    return f"agents {', '.join(sorted(verdict.joining))} are joining the swarm"


def _seated(
    snapshot: Snapshot,
    row: SessionRow,
    pool: IPv4Network,
    found: tuple[place.Fit, Sequence[place.Room], swarm.Verdict],
) -> Placement | Wait:
    fit, offered, verdict = found
    session = row.session
    hosts = tuple(dict.fromkeys(fit.agents))
    owner = hosts[0] if len(hosts) == 1 else verdict.owner
    if owner is None:
        return Wait("it needs several agents: no engine can make their network", blocks=False)
    length = address.prefix(len(row.kernels), len(hosts))
    routes = _routes(snapshot, {*hosts, owner})
    subnet = address.choose(pool, length, (*_subnets(snapshot), *routes), session.id)
    if subnet is None:
        return Wait(_no_subnet(pool, length, routes), blocks=False)
    request = place.Request.of(session.spec, row.kernels)
    gpus = place.devices(request.needs, fit.agents, offered)
    addresses = address.addresses(subnet, len(row.kernels))
    seats = tuple(
        Seat(kernel.id, agent, own, devices)
        for kernel, agent, own, devices in zip(
            row.kernels, fit.agents, addresses, gpus, strict=True
        )
    )
    network = NetworkRow(
        name=names.network_name(session.id, session.attempt),
        driver="bridge" if len(hosts) == 1 else "overlay",
        subnet=str(subnet),
        owner=owner,
    )
    return Placement(session.id, session.attempt, seats, network)


def _subnets(snapshot: Snapshot) -> list[str]:
    """List the subnets of all live networks."""
    return [
        row.session.network.subnet
        for row in snapshot.rows()
        if row.session.network is not None and not row.session.network.released
    ]


def _routes(snapshot: Snapshot, hosts: set[AgentId]) -> list[str]:
    """List what the routes of these hosts use."""
    return [
        subnet
        for host in sorted(hosts)
        if (observed := snapshot.agents[host].observed) is not None
        for subnet in observed.subnets
    ]


def _no_subnet(pool: IPv4Network, length: int, routes: Sequence[str]) -> str:
    route = address.covering(pool, routes)
    if route is not None:
        return (
            f"a host's route to {route} covers all session networks ({pool}); set another pool "
            "in manager.toml"
        )
    return f"no /{length} of the session networks' pool {pool} is free; set a larger pool"
