"""Builders of what the manager's core works on: agents, sessions, kernels, reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from phalanx_manager.core.admit import Admitted, admit
from phalanx_manager.core.model import (
    AgentRecord,
    Kernel,
    Limits,
    NetworkRow,
    Refusal,
    Session,
    SessionRow,
    Snapshot,
)
from phalanx_wire.control import Engine, Gpu, KernelReport, Observed, SwarmReport
from phalanx_wire.ids import AgentId, ClusterName, SessionId, kernel_id
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.names import network_name
from phalanx_wire.slots import Slots
from phalanx_wire.spec import SessionSpec

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CLUSTER = ClusterName("default")
GIB = 1 << 30
SID = SessionId("abcdefghijkl")
SUBNET = "10.213.0.0/26"


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def observed(
    name: str = "a",
    *,
    cpu: float = 8,
    mem_gib: float = 32,
    gpus: int = 0,
    model: str = "h200",
    **fields: Any,
) -> Observed:
    devices = tuple(Gpu(f"gpu{number}", model) for number in range(gpus))
    given = {
        "boot_id": "boot",
        "revision": 0,
        "capacity": Slots(int(cpu * 1000), int(mem_gib * GIB), gpus, 1_000_000),
        "address": f"192.0.2.{ord(name[0]) - 96}",
        "engine": Engine("20.10", "1.41"),
        "gpus": devices,
    }
    return Observed(**{**given, **fields})


def agent(name: str = "a", report: Observed | None = None, **fields: Any) -> AgentRecord:
    given = {
        "cluster": CLUSTER,
        "public_key": f"key-{name}",
        "joined_at": NOW,
        "observed": report or observed(name),
        "seen_at": NOW,
        "connected": True,
    }
    return AgentRecord(AgentId(name), **{**given, **fields})


def in_swarm(name: str, *, control: bool = False, **fields: Any) -> Observed:
    report = SwarmReport(
        state="active",
        swarm_id="swarm-one" if control else "",
        node_id=f"node-{name}",
        control=control,
        address=f"192.0.2.{ord(name[0]) - 96}",
        worker_token="W" if control else "",
        manager_token="M" if control else "",
        canary_ok=control,
    )
    return observed(name, swarm=report, **fields)


def agents(*records: AgentRecord) -> Mapping[AgentId, AgentRecord]:
    return {record.name: record for record in records}


def spec(**fields: Any) -> SessionSpec:
    return SessionSpec(**{"image": "busybox", "command": ("true",), **fields})


def admitted(**fields: Any) -> Admitted:
    outcome = admit(spec(**fields), Limits(), {}, "calm-otter-aa")
    assert isinstance(outcome, Admitted), outcome
    return outcome


def refused(**fields: Any) -> Refusal:
    outcome = admit(spec(**fields), Limits(), {}, "calm-otter-aa")
    assert isinstance(outcome, Refusal), outcome
    return outcome


def row(
    seats: str | Sequence[str | None] = "a",
    states: KernelState | Sequence[KernelState] = KernelState.ASSIGNED,
    *,
    session: SessionId = SID,
    **fields: Any,
) -> SessionRow:
    """A session whose ranks sit on the agents named; None is a rank without one yet."""
    wanted = admitted(size=len(seats), **fields) if "roles" not in fields else admitted(**fields)
    per_rank = [states] * len(seats) if isinstance(states, KernelState) else list(states)
    kernels = tuple(
        Kernel(
            id=kernel_id(session, 1, plan.rank),
            session=session,
            rank=plan.rank,
            role=plan.role,
            replica=plan.replica,
            host_name=plan.host_name,
            slots=plan.slots,
            shm_bytes=plan.shm_bytes,
            state=state,
            state_at=NOW,
            gpu_model=plan.gpu_model,
            agent=AgentId(seat) if seat is not None else None,
            address=f"10.213.0.{40 + plan.rank}",
        )
        for plan, seat, state in zip(wanted.kernels, seats, per_rank, strict=True)
    )
    hosts = [seat for seat in seats if seat is not None]
    network = NetworkRow(
        network_name(session, 1),
        "bridge" if len(set(hosts)) < 2 else "overlay",
        SUBNET,
        AgentId(hosts[0]) if hosts else AgentId("a"),
    )
    return SessionRow(
        Session(
            id=session,
            name=wanted.spec.name or "",
            user="ada",
            cluster=CLUSTER,
            spec=wanted.spec,
            state="pending",
            attempt=1,
            created_at=NOW,
            started_at=NOW if KernelState.RUNNING in per_rank else None,
            network=network if hosts else None,
        ),
        kernels,
    )


def with_kernel(one: SessionRow, rank: int, **fields: Any) -> SessionRow:
    kernels = list(one.kernels)
    kernels[rank] = replace(kernels[rank], **fields)
    return SessionRow(one.session, tuple(kernels))


def with_session(one: SessionRow, **fields: Any) -> SessionRow:
    return SessionRow(replace(one.session, **fields), one.kernels)


def snapshot(rows: Iterable[SessionRow] = (), records: Iterable[AgentRecord] = ()) -> Snapshot:
    return Snapshot("cid", {one.session.id: one for one in rows}, agents(*records))


def report(kernel: Kernel, state: KernelState, **fields: Any) -> KernelReport:
    return KernelReport(kernel.id, state, **fields)


def reporting(base: Observed, *reports: KernelReport, **fields: Any) -> Observed:
    return msgspec.structs.replace(base, kernels=reports, **fields)
