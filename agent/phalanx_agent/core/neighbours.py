"""Which other hosts a kernel's host has to reach for the network that the session has over both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from phalanx_wire.control import Gang, Member
from phalanx_wire.ids import AgentId

MOST: Final = 32
"""Hosts that one tries: a thousand hosts need not make a million connections."""


def to_try(gang: Gang, own: Member) -> Mapping[AgentId, str]:
    """Tell their addresses: of the hosts that come next, going round; of several kernels on one
    host only the first tries.
    """
    order = list(dict.fromkeys(member.agent for member in gang.members))
    if next(one.rank for one in gang.members if one.agent == own.agent) != own.rank:
        return {}
    at = order.index(own.agent)
    following = (*order[at + 1 :], *order[:at])[:MOST]
    return {agent: gang.hosts[agent] for agent in following if agent in gang.hosts}


def apart(own: AgentId, silent: Mapping[AgentId, str]) -> str:
    """Say what is wrong when some of them do not answer, and what to do."""
    names = " and ".join(f"{agent} at {address}" for agent, address in silent.items())
    return (
        f"Host {own} gets no answer of host {names} (TCP port 7946, and UDP 4789 and 7946 are "
        "needed besides): hosts that share a session must reach each other at these addresses, "
        "which they do not through a router that hides one of them. Put hosts that reach each "
        "other into one cluster, or use --mode single-node; agent.toml's advertise names another "
        "address."
    )
