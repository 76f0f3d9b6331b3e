"""Sealed uploads: which hosts can open one, so where its session may run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

from phalanx_manager.core.explain import agent_state
from phalanx_manager.core.model import AgentRecord, Refusal
from phalanx_manager.core.place import Room
from phalanx_wire.ids import AgentId

NOT_FOR_ALL: Final = "upload_not_sealed_for_all"
_SHOWN: Final = 6

Agents = Mapping[AgentId, AgentRecord]


def recipients(
    agents: Agents, cluster: str, keys: Collection[str]
) -> Mapping[AgentId, str] | Refusal:
    """Name the agents of a cluster with their keys, all of which must open what is sealed for
    some keys.
    """
    members = {one.name: one.public_key for one in agents.values() if one.cluster == cluster}
    apart = sorted(name for name, key in members.items() if key not in keys)
    if members and not apart:
        return members
    whom = f"{_list(apart)} of cluster {cluster}" if apart else f"anybody in cluster {cluster}"
    return Refusal(
        NOT_FOR_ALL,
        409,
        f"the upload is not sealed for {whom}",
        "upload",
        "seal it for the keys of all the cluster's hosts (GET /v1/nodes) as the client does, or "
        "send the archive as it is (--no-seal)",
    )


def opens(record: AgentRecord, sealed_for: Mapping[str, str] | None) -> bool:
    """Tell whether an agent can open a session's upload: any can if it is not sealed."""
    return sealed_for is None or sealed_for.get(record.name) == record.public_key


def rooms(
    offered: Sequence[Room], agents: Agents, sealed_for: Mapping[str, str] | None
) -> Sequence[Room]:
    """Pick those of agents that can open a session's upload."""
    if sealed_for is None:
        return offered
    return tuple(room for room in offered if opens(agents[room.agent], sealed_for))


def nobody(agents: Agents, cluster: str, sealed_for: Mapping[str, str], now: datetime) -> str:
    """Say why none of those is ready, and what to do where waiting may not help."""
    members = [one for one in agents.values() if one.cluster == cluster]
    said = [
        f"{name} {_how(agents.get(AgentId(name)), cluster, key, now)}"
        for name, key in sorted(sealed_for.items())
    ]
    text = f"no agent that its upload is sealed for is ready: {_list(said)}"
    later = sorted(one.name for one in members if not opens(one, sealed_for))
    gone = sum(opens(one, sealed_for) for one in members) < len(sealed_for)
    if not later and not gone:
        return text
    return f"{text}{unopened(later)}; submit it again to seal it for the hosts that are there then"


def unopened(later: Sequence[str]) -> str:
    """Go on with who joined too late; empty when nobody did."""
    if not later:
        return ""
    return f"; {_list(later)} joined after it was submitted and cannot open its upload"


def _how(record: AgentRecord | None, cluster: str, key: str, now: datetime) -> str:
    if record is None or record.cluster != cluster:
        return "has left"
    if record.public_key != key:
        return "has joined anew with another key"
    return f"is {agent_state(record, now)[0]}"


def _list(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
