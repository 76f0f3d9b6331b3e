"""Sessions on their hosts' own networks, placed as the scheduler would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from phalanx_manager.core.model import AgentRecord, SessionRow
from phalanx_manager.core.seat import Placement, Wait, plan
from phalanx_wire.control import HostNetwork
from phalanx_wire.ids import SessionId
from phalanx_wire.lifecycle import KernelState
from tests.support.house import NOW, SID, agent, observed, row, snapshot

OFFER = HostNetwork("eth0", 61000, 61999)
POOL = IPv4Network("10.213.0.0/16")


def host(name: str = "a", offer: HostNetwork | None = OFFER, **fields: Any) -> AgentRecord:
    """An agent that lets containers onto its host's network."""
    subnets = ("192.0.2.0/24", "192.0.0.0/16", "10.9.0.0/16")
    return agent(name, observed(name, host_network=offer, subnets=subnets, **fields))


def waiting(size: int, session: SessionId = SID, **fields: Any) -> SessionRow:
    """A session on the hosts' network without a place yet."""
    seats: list[str | None] = [None] * size
    return row(seats, KernelState.PENDING, session=session, network="host", **fields)


def planned(
    one: SessionRow, records: Sequence[AgentRecord], others: Sequence[SessionRow] = ()
) -> Placement | Wait:
    """What the scheduler decides."""
    return plan(snapshot([one, *others], records), one, POOL, NOW)


def seated(
    one: SessionRow, records: Sequence[AgentRecord], others: Sequence[SessionRow] = ()
) -> SessionRow:
    """The session with the place that the scheduler finds for it."""
    found = planned(one, records, others)
    assert isinstance(found, Placement), found
    kernels = tuple(
        replace(seat.of(kernel), state=KernelState.ASSIGNED)
        for kernel, seat in zip(one.kernels, found.seats, strict=True)
    )
    return replace(one, session=replace(one.session, network=found.network), kernels=kernels)
