"""From rows to what people and programs see."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from phalanx_manager.core import explain, folders, ports
from phalanx_manager.core.model import AgentRecord, Caller, Kernel, SessionRow, Snapshot
from phalanx_manager.store.port import TokenRow
from phalanx_wire.api import Amounts, Holder, KernelView, NodeView, SessionView, TokenView
from phalanx_wire.control import Engine, SwarmReport
from phalanx_wire.ids import AgentId, ClusterName
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.slots import Slots
from phalanx_wire.spec import SessionSpec


def session(row: SessionRow) -> SessionView:
    """Show a session in full."""
    it = row.session
    several = len({one.agent for one in row.kernels}) > 1
    placed = it.spec.mode if it.network is None else ("multi-node" if several else "single-node")
    return SessionView(
        id=it.id,
        name=it.name,
        kind=it.spec.kind or "batch",
        mode=placed,
        state=it.state,
        reason=explain.session_reason(row),
        exit_code=it.exit_code,
        attempt=it.attempt,
        cluster=it.cluster,
        created_at=it.created_at,
        started_at=it.started_at,
        ended_at=it.ended_at,
        kernels=tuple(kernel(one) for one in row.kernels),
        spec=it.spec,
        warnings=(*it.warnings, *folders.unshared(row), *_kernel_warnings(row)),
        number=it.number,
        user=it.user,
        held=it.held,
        extended_s=it.extended_s,
    )


def kernel(one: Kernel) -> KernelView:
    """Show one container; one that is removed is shown as how it ended."""
    state = one.state
    if state is KernelState.REMOVED and one.ended_as is not None:
        state = one.ended_as
    return KernelView(
        rank=one.rank,
        host_name=one.host_name,
        role=one.role,
        agent=one.agent,
        address=one.address or None,
        state=state.name.lower(),
        exit_code=one.exit_code,
        reason=explain.kernel_reason(one),
        ssh_port=one.ssh_port,
        service_port=one.service_port,
    )


def _kernel_warnings(row: SessionRow) -> tuple[str, ...]:
    """All different warnings, each with the first host that gave it."""
    first: dict[str, str] = {}
    for one in row.kernels:
        for warning in one.warnings:
            first.setdefault(warning, one.host_name)
    return tuple(f"{host}: {warning}" for warning, host in first.items())


def nodes(snapshot: Snapshot, now: datetime, caller: Caller) -> tuple[NodeView, ...]:
    """Show all agents by name; who holds them only as far as it is the caller's business."""
    held: dict[AgentId, list[tuple[SessionRow, Kernel]]] = {}
    for row in snapshot.rows():
        for one in row.kernels:
            if one.agent is not None and one.holds:
                held.setdefault(one.agent, []).append((row, one))
    return tuple(
        _node(record, held.get(name, []), now, caller)
        for name, record in sorted(snapshot.agents.items())
    )


def _node(
    record: AgentRecord, held: list[tuple[SessionRow, Kernel]], now: datetime, caller: Caller
) -> NodeView:
    seen = record.observed
    used = Slots()
    for _row, one in held:
        used = used + one.slots
    state, reason = explain.agent_state(record, now)
    if state == "drained" and held:
        state = "draining"
    engine, swarm = (seen.engine, seen.swarm) if seen else (Engine(), SwarmReport())
    return NodeView(
        name=record.name,
        cluster=record.cluster,
        state=state,
        reason=reason,
        address=seen.address if seen else "",
        engine=engine.version,
        capacity=_amounts(seen.capacity if seen else Slots()),
        used=_amounts(used),
        gpu_models=tuple(gpu.model for gpu in seen.gpus) if seen else (),
        swarm=swarm.state,
        last_seen_at=record.seen_at,
        holders=tuple(
            Holder(row.session.id, row.session.name, one.id, one.host_name)
            for row, one in held
            if caller.scope == "admin" or row.session.user == caller.user
        ),
        strays=tuple(f"{stray.kind} {stray.name}" for stray in seen.strays) if seen else (),
        warnings=seen.warnings if seen else (),
        host_ports=ports.spell(record.host_network) if record.host_network else "",
        public_key=record.public_key,
    )


def _amounts(slots: Slots) -> Amounts:
    return Amounts(slots.cpu_milli / 1000, slots.mem_bytes, slots.gpu, slots.pids)


def token(row: TokenRow) -> TokenView:
    """Show a token without its secret."""
    return TokenView(
        id=row.id,
        kind=row.kind,
        name=row.name,
        scope=row.scope if row.kind == "bearer" else "",
        created_at=row.created_at,
        expires_at=row.expires_at,
        used_by=row.used_by,
        revoked=row.revoked,
    )


def counted(snapshot: Snapshot, now: datetime) -> Mapping[str, Mapping[str, int]]:
    """Count what is alive by state: sessions, kernels, agents."""
    counts: dict[str, dict[str, int]] = {"sessions": {}, "kernels": {}, "agents": {}}

    def count(what: str, state: str) -> None:
        counts[what][state] = counts[what].get(state, 0) + 1

    for row in snapshot.sessions.values():
        count("sessions", row.session.state)
        for one in row.kernels:
            count("kernels", one.state.name.lower())
    for record in snapshot.agents.values():
        count("agents", explain.agent_state(record, now)[0])
    return counts


def cluster_of(spec: SessionSpec) -> ClusterName:
    """Read the pool that a spec names."""
    return ClusterName(spec.cluster)
