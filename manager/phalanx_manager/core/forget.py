"""Giving up a host that does not come back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from phalanx_manager.core.model import AgentRecord, Refusal, Snapshot
from phalanx_manager.core.observe import Changes, KernelChange, NetworkChange, moved
from phalanx_wire.lifecycle import KernelState, Owner


def forget(snapshot: Snapshot, record: AgentRecord, now: datetime) -> Changes | Refusal:
    """Free what a lost host holds, by an operator's word in place of its agent's."""
    name = record.name
    if record.connected or not record.lost:
        return Refusal(
            "node_not_lost",
            409,
            f"agent {name} is {'connected' if record.connected else 'not taken for lost yet'}",
            hint="drain it, or wait until `phalanx nodes` shows it as lost: what it ran has "
            "certainly ended then",
        )
    kernels: list[KernelChange] = []
    networks: list[NetworkChange] = []
    for row in snapshot.rows():
        session, network = row.session, row.session.network
        for kernel in row.kernels:
            if kernel.agent != name or not kernel.holds:
                continue
            if not kernel.ended:
                return Refusal(
                    "node_not_lost",
                    409,
                    f"session {session.name} still waits for agent {name}",
                    hint="its own lost_after_s is longer; stop it, or wait",
                )
            after = moved(kernel, (KernelState.REMOVED,), now)
            text = f"rank {kernel.rank} ({kernel.host_name}) is forgotten with agent {name}"
            step = (KernelState.REMOVED,)
            kernels.append(KernelChange(kernel.state, step, Owner.AGENT, after, (text,)))
        if network is not None and network.owner == name and not network.released:
            gone = replace(network, released=True, problem="")
            networks.append(NetworkChange(session.id, session.attempt, gone))
    return Changes(tuple(kernels), tuple(networks))
