"""A waiting gang's whole placement: agents, devices, network, addresses, ports. All or nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import IPv4Network
from typing import Final

from phalanx_manager.core import address, orders, place, ports, sealing, swarm
from phalanx_manager.core.explain import nobody
from phalanx_manager.core.model import (
    AgentRecord,
    Kernel,
    NetworkRow,
    Session,
    SessionRow,
    Snapshot,
)
from phalanx_wire import names
from phalanx_wire.ids import AgentId, KernelId, SessionId

NO_HOST_NETWORK: Final = "no agent that is ready lets containers onto its host's network"


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one kernel of a gang shall be, and what it holds there; see `Kernel`."""

    kernel: KernelId
    agent: AgentId
    address: str
    gpus: tuple[str, ...]
    interface: str = ""
    ssh_port: int = 0
    service_port: int = 0

    @property
    def ports(self) -> tuple[int, ...]:
        """What it holds of its host's ports; none but on the host's network."""
        return (self.ssh_port, self.service_port) if self.ssh_port else ()

    def of(self, kernel: Kernel) -> Kernel:
        """Give a kernel this seat."""
        return replace(
            kernel,
            agent=self.agent,
            address=self.address,
            gpus=self.gpus,
            interface=self.interface,
            ssh_port=self.ssh_port,
            service_port=self.service_port,
        )


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
    ready = place.rooms(snapshot, session.cluster, verdict.members, now)
    sealed_for = session.spec.sealed_for
    offered = sealing.rooms(ready, snapshot.agents, sealed_for)
    if not offered and sealed_for is not None:
        return Wait(sealing.nobody(snapshot.agents, session.cluster, sealed_for, now), blocks=False)
    if not offered:
        members = (one for one in snapshot.agents.values() if one.cluster == session.cluster)
        return Wait(nobody(members, now), blocks=False)
    found = _told(snapshot, row, pool, (offered, verdict))
    if isinstance(found, Wait) and len(offered) < len(ready):
        others = sorted(room.agent for room in ready if room not in offered)
        return replace(found, reason=found.reason + sealing.unopened(others))
    return found


def _told(
    snapshot: Snapshot,
    row: SessionRow,
    pool: IPv4Network,
    found: tuple[Sequence[place.Room], swarm.Verdict],
) -> Placement | Wait:
    """Place a gang where the agents can be told of it beside all else that they are told."""
    offered, verdict = found
    full: frozenset[AgentId] = frozenset()
    while True:
        left = [room for room in offered if room.agent not in full]
        placed = _placed(snapshot, row, pool, (left, verdict)) if left else Wait("", blocks=False)
        if isinstance(placed, Wait):
            return Wait(orders.too_much(full), blocks=False) if full else placed
        over = orders.over(snapshot, row, [seat.agent for seat in placed.seats])
        if not over:
            return placed
        full |= over


def _placed(
    snapshot: Snapshot,
    row: SessionRow,
    pool: IPv4Network,
    found: tuple[Sequence[place.Room], swarm.Verdict],
) -> Placement | Wait:
    session, (offered, verdict) = row.session, found
    if session.spec.network == "host":
        return _on_the_hosts(snapshot, row, offered)
    request = place.Request.of(session.spec, row.kernels)
    joining = [
        name
        for name in verdict.joining
        if sealing.opens(snapshot.agents[name], session.spec.sealed_for)
    ]
    waits = verdict.waits or _joining(request, joining)
    fit = place.gang(request, offered, waits)
    if isinstance(fit, place.NoFit):
        return Wait(fit.reason, blocks=_could(snapshot, request, offered) and not fit.needs_swarm)
    return _seated(snapshot, row, pool, (fit, offered, verdict))


def host_rooms(snapshot: Snapshot, offered: Sequence[place.Room]) -> tuple[place.Room, ...]:
    """Pick the agents that let containers onto their hosts' network, which needs no swarm."""
    return tuple(
        replace(room, in_swarm=True)
        for room in offered
        if snapshot.agents[room.agent].host_network is not None
    )


def _could(snapshot: Snapshot, request: place.Request, offered: Sequence[place.Room]) -> bool:
    """Tell whether a gang would fit if nothing else ran."""
    idle = place.idle_rooms(snapshot.agents[room.agent] for room in offered)
    return bool(idle) and isinstance(place.gang(request, idle), place.Fit)


def _joining(request: place.Request, joining: Collection[AgentId]) -> str:
    """Let a session that wants many hosts wait for those that are just joining."""
    if not joining or (request.mode == "auto" and request.spread == "pack"):
        return ""
    return f"agents {', '.join(sorted(joining))} are joining the swarm"


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
    taken = (*_subnets(snapshot), *routes)
    subnet = address.choose(pool, length, taken, session.id, session.attempt)
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


def _on_the_hosts(
    snapshot: Snapshot, row: SessionRow, offered: Sequence[place.Room]
) -> Placement | Wait:
    """Place a gang on its hosts' own networks: no swarm is needed, but free ports are."""
    session = row.session
    rooms = host_rooms(snapshot, offered)
    if not rooms:
        return Wait(NO_HOST_NETWORK, blocks=False)
    request = place.Request.of(session.spec, row.kernels)
    held = _ports(snapshot)
    short: list[str] = []
    while True:
        fit = place.gang(request, rooms) if rooms else place.NoFit("")
        if isinstance(fit, place.NoFit):
            if short:
                return Wait("; ".join(short), blocks=False)
            return Wait(fit.reason, blocks=_could(snapshot, request, rooms))
        found = _host_seats(snapshot, row, fit, rooms, held)
        if isinstance(found, Placement):
            return found
        short.append(found.why)
        rooms = tuple(room for room in rooms if room.agent != found.agent)


@dataclass(frozen=True, slots=True)
class _Short:
    """An agent has too few free ports for its part of a gang."""

    agent: AgentId
    why: str


def _host_seats(
    snapshot: Snapshot,
    row: SessionRow,
    fit: place.Fit,
    rooms: Sequence[place.Room],
    held: Mapping[AgentId, frozenset[int]],
) -> Placement | _Short:
    session = row.session
    hosts = tuple(dict.fromkeys(fit.agents))
    kept: dict[AgentId, Iterator[int]] = {}
    for agent in hosts:
        asked = session.spec.master_port if agent == hosts[0] else None
        count = fit.agents.count(agent)
        found = _kept(snapshot.agents[agent], held.get(agent, frozenset()), asked, (count, session))
        if isinstance(found, _Short):
            return found
        kept[agent] = iter(found)
    request = place.Request.of(session.spec, row.kernels)
    gpus = place.devices(request.needs, fit.agents, rooms)
    seats: list[Seat] = []
    homes: dict[str, None] = {}
    for kernel, agent, devices in zip(row.kernels, fit.agents, gpus, strict=True):
        seen = snapshot.agents[agent].observed
        offer = snapshot.agents[agent].host_network
        assert seen is not None  # noqa: S101 - only such agents were offered
        assert offer is not None  # noqa: S101 - only such agents were offered
        service, ssh = next(kept[agent]), next(kept[agent])
        seats.append(Seat(kernel.id, agent, seen.address, devices, offer.interface, ssh, service))
        homes[address.home(seen.address, seen.subnets)] = None
    network = NetworkRow(
        name=names.network_name(session.id, session.attempt),
        driver="host",
        subnet=",".join(homes),
        owner=hosts[0],
        engine_id=names.HOST_NETWORK,
        released=True,
    )
    return Placement(session.id, session.attempt, tuple(seats), network)


def _kept(
    record: AgentRecord, held: frozenset[int], asked: int | None, gang: tuple[int, Session]
) -> tuple[int, ...] | _Short:
    """Choose two ports for each of so many kernels on one agent. What was asked for comes first,
    as main1's service port.
    """
    count, session = gang
    offer = record.host_network
    assert offer is not None  # noqa: S101 - only such agents were offered
    if asked in held:
        why = f"port {asked} (master_port) of agent {record.name} is held by another container"
        return _Short(record.name, why)
    first = () if asked is None else (asked,)
    found = ports.choose(offer, held.union(first), 2 * count - len(first), session.id)
    if found is None:
        range_ = ports.spell(offer)
        why = f"agent {record.name} has fewer than {2 * count} ports free (host_ports {range_})"
        return _Short(record.name, why)
    return (*first, *found)


def _ports(snapshot: Snapshot) -> Mapping[AgentId, frozenset[int]]:
    """Collect the ports that are held on each agent."""
    held: dict[AgentId, set[int]] = {}
    for row in snapshot.rows():
        for kernel in row.kernels:
            if kernel.agent is not None and kernel.holds and kernel.ssh_port:
                own = held.setdefault(kernel.agent, set())
                own.update((kernel.ssh_port, kernel.service_port))
    return {agent: frozenset(own) for agent, own in held.items()}


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
