"""Between rows of the database and the values of the core. Times are Unix microseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from phalanx_manager.core.model import (
    AgentRecord,
    Cluster,
    Drain,
    Kernel,
    NetworkRow,
    Removal,
    Session,
    Stop,
    StopCause,
)
from phalanx_manager.core.seat import Seat
from phalanx_manager.store.port import TokenRow
from phalanx_wire.api import EventView
from phalanx_wire.control import Observed, SwarmReport
from phalanx_wire.ids import AgentId, split_kernel_id
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.slots import Slots
from phalanx_wire.spec import SessionSpec

Row = Sequence[Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SPEC: Final = msgspec.json.Decoder(SessionSpec)
_TEXTS: Final = msgspec.json.Decoder(tuple[str, ...])
_FOLDERS: Final = msgspec.json.Decoder(dict[str, str])
_OBSERVED: Final = msgspec.msgpack.Decoder(Observed)


def micros(at: datetime | None) -> int | None:
    """Spell a moment for the database."""
    return None if at is None else (at - _EPOCH) // timedelta(microseconds=1)


def moment(at: int | None) -> datetime | None:
    """Read a moment."""
    return None if at is None else _EPOCH + timedelta(microseconds=at)


def at(value: int) -> datetime:
    """Read a moment that is always there."""
    return _EPOCH + timedelta(microseconds=value)


def spell_spec(spec: SessionSpec) -> str:
    """Spell a spec."""
    return msgspec.json.encode(spec).decode()


def spell_texts(texts: Sequence[str]) -> str:
    """Spell a list of texts."""
    return msgspec.json.encode(texts).decode() if texts else "[]"


def texts(value: str) -> tuple[str, ...]:
    """Read a list of texts."""
    return () if value == "[]" else _TEXTS.decode(value)


def session(row: Row, network: NetworkRow | None) -> Session:
    """Read a row of `session_columns`."""
    stop = None
    if row[10] is not None:
        stop = Stop(StopCause(row[10]), row[11], at(row[12]), row[13], row[14], row[19])
    return Session(
        id=row[0],
        name=row[1],
        user=row[2],
        cluster=row[3],
        spec=_SPEC.decode(row[4]),
        state=row[5],
        attempt=row[6],
        created_at=at(row[7]),
        started_at=moment(row[8]),
        ended_at=moment(row[9]),
        stop=stop,
        reason=row[15],
        exit_code=row[16],
        failed_rank=row[17],
        network=network,
        warnings=texts(row[18]),
        charged=row[20],
        because=row[21],
        not_before=moment(row[22]),
        warned_at=moment(row[23]),
        held=bool(row[24]),
        extended_s=row[25],
        kept_until=moment(row[26]),
        number=row[27],
    )


def new_session(session: Session) -> Mapping[str, object]:
    """Spell a session for `session_add`."""
    return {
        "id": session.id,
        "number": session.number,
        "name": session.name,
        "user": session.user,
        "cluster": session.cluster,
        "spec": spell_spec(session.spec),
        "created_at": micros(session.created_at),
        "warnings": spell_texts(session.warnings),
    }


def attempt(current: Session, row: Row, network: NetworkRow | None) -> Session:
    """Read a row of `attempt_columns`: the session as it was when that attempt had ended."""
    return replace(
        current,
        attempt=row[0],
        state=row[1],
        started_at=moment(row[2]),
        ended_at=moment(row[3]),
        reason=row[4],
        exit_code=row[5],
        failed_rank=row[6],
        network=network,
        stop=None,
        because="",
        not_before=None,
        warned_at=None,
        kept_until=moment(row[8]),
    )


def attempt_values(ended: Session, *, done: bool) -> Mapping[str, object]:
    """Spell an attempt that has ended for `attempt_add`."""
    return {
        "session": ended.id,
        "attempt": ended.attempt,
        "state": ended.state,
        "started_at": micros(ended.started_at),
        "ended_at": micros(ended.ended_at),
        "reason": ended.reason,
        "exit_code": ended.exit_code,
        "failed_rank": ended.failed_rank,
        "kept_until": micros(ended.kept_until),
        "done": int(done),
    }


def session_values(session: Session, *, done: bool) -> Mapping[str, object]:
    """Spell a session for `session_set`."""
    stop = session.stop
    return {
        "id": session.id,
        "state": session.state,
        "attempt": session.attempt,
        "started_at": micros(session.started_at),
        "ended_at": micros(session.ended_at),
        "stop_cause": stop.cause.value if stop else None,
        "stop_text": stop.text if stop else None,
        "stop_at": micros(stop.at) if stop else None,
        "stop_rank": stop.rank if stop else None,
        "stop_grace_s": stop.grace_s if stop else None,
        "stop_then": stop.then if stop else "",
        "reason": session.reason,
        "exit_code": session.exit_code,
        "failed_rank": session.failed_rank,
        "charged": session.charged,
        "because": session.because,
        "not_before": micros(session.not_before),
        "warned_at": micros(session.warned_at),
        "held": int(session.held),
        "extended_s": session.extended_s,
        "kept_until": micros(session.kept_until),
        "done": int(done),
    }


def kernel(row: Row) -> Kernel:
    """Read a row of `kernel_columns`."""
    return Kernel(
        id=row[0],
        session=row[1],
        rank=row[2],
        role=row[3],
        replica=row[4],
        host_name=row[5],
        slots=Slots(row[6], row[7], row[8], row[9]),
        shm_bytes=row[10],
        state=KernelState(row[11]),
        state_at=at(row[12]),
        gpu_model=row[13],
        agent=row[14],
        address=row[15],
        gpus=texts(row[16]),
        ended_as=None if row[17] is None else KernelState(row[17]),
        exit_code=row[18],
        cause=row[19],
        message=row[20],
        detail=row[21],
        host_key=row[22],
        user_key=row[23],
        container_id=row[24],
        warnings=texts(row[25]),
        interface=row[26],
        ssh_port=row[27],
        service_port=row[28],
        folders={} if row[29] == "{}" else _FOLDERS.decode(row[29]),
    )


def new_kernel(kernel: Kernel) -> Mapping[str, object]:
    """Spell a kernel for `kernel_add`."""
    return {
        "id": kernel.id,
        "session": kernel.session,
        "attempt": split_kernel_id(kernel.id)[1],
        "rank": kernel.rank,
        "role": kernel.role,
        "replica": kernel.replica,
        "host_name": kernel.host_name,
        **{field: getattr(kernel.slots, field) for field in kernel.slots.__struct_fields__},
        "gpu_model": kernel.gpu_model,
        "shm_bytes": kernel.shm_bytes,
        "state_at": micros(kernel.state_at),
    }


def seat_values(seat: Seat) -> Mapping[str, object]:
    """Spell a seat for `kernel_seat`."""
    return {
        "id": seat.kernel,
        "agent": seat.agent,
        "address": seat.address,
        "gpus": spell_texts(seat.gpus),
        "interface": seat.interface,
        "ssh_port": seat.ssh_port,
        "service_port": seat.service_port,
    }


def kernel_values(kernel: Kernel) -> Mapping[str, object]:
    """Spell what `kernel_set` writes beside the state."""
    return {
        "id": kernel.id,
        "state": int(kernel.state),
        "ended_as": None if kernel.ended_as is None else int(kernel.ended_as),
        "exit_code": kernel.exit_code,
        "cause": kernel.cause,
        "message": kernel.message,
        "detail": kernel.detail,
        "host_key": kernel.host_key,
        "user_key": kernel.user_key,
        "container_id": kernel.container_id,
        "warnings": spell_texts(kernel.warnings),
        "folders": msgspec.json.encode(kernel.folders).decode() if kernel.folders else "{}",
    }


def network(row: Row) -> NetworkRow:
    """Read a row of `network_columns`."""
    return NetworkRow(
        name=row[0],
        driver=row[1],
        subnet=row[2],
        owner=row[3],
        engine_id=row[4],
        problem=row[5],
        failed=bool(row[6]),
        released=bool(row[7]),
    )


def network_values(network: NetworkRow) -> Mapping[str, object]:
    """Spell a network for `network_add` and `network_set`."""
    return {
        "name": network.name,
        "driver": network.driver,
        "subnet": network.subnet,
        "owner": network.owner,
        "engine_id": network.engine_id,
        "problem": network.problem,
        "failed": int(network.failed),
        "released": int(network.released),
    }


def agent(row: Row) -> AgentRecord:
    """Read a row of `agents`. A report that an older version stored counts as none."""
    observed: Observed | None = None
    if row[4] is not None:
        try:
            observed = _OBSERVED.decode(row[4])
        except msgspec.MsgspecError:
            observed = None
    return AgentRecord(
        name=AgentId(row[0]),
        cluster=row[1],
        public_key=row[2],
        joined_at=at(row[3]),
        observed=observed,
        seen_at=moment(row[5]),
        lost=bool(row[6]),
        drain=_drain(row),
    )


def _drain(row: Row) -> Drain | None:
    if row[7] is None:
        return None
    return Drain(row[7], at(row[8]), moment(row[9]), row[10] or 0, bool(row[11]))


def drain_values(agent: AgentId, drain: Drain | None) -> Mapping[str, object]:
    """Spell a drain, or that there is none, for `agent_drain`."""
    return {
        "name": agent,
        "reason": drain.reason if drain else None,
        "at": micros(drain.at) if drain else None,
        "deadline": micros(drain.deadline) if drain else None,
        "signal": drain.signal if drain else None,
        "signalled": int(drain is not None and drain.signalled),
    }


def cluster(row: Row) -> Cluster:
    """Read a row of `clusters`."""
    removal = None if row[3] is None else Removal(at(row[3]), row[4], bool(row[5]))
    return Cluster(row[0], moment(row[1]), row[2], removal, moment(row[6]), texts(row[7]), row[8])


def cluster_values(cluster: Cluster) -> Mapping[str, object]:
    """Spell a cluster for `cluster_set`."""
    removal = cluster.removal
    return {
        "name": cluster.name,
        "created_at": micros(cluster.created_at),
        "created_by": cluster.created_by,
        "removal_at": micros(removal.at) if removal else None,
        "removal_by": removal.by if removal else "",
        "removal_force": int(removal is not None and removal.force),
        "removed_at": micros(cluster.removed_at),
        "leaves": spell_texts(cluster.leaves),
        "founder": cluster.founder,
    }


def lasting(observed: Observed) -> Observed:
    """Keep of a report what outlives a restart: nothing that is secret or said anew anyway."""
    swarm: SwarmReport = msgspec.structs.replace(observed.swarm, worker_token="", manager_token="")
    return msgspec.structs.replace(
        observed, revision=-1, kernels=(), networks=(), strays=(), swarm=swarm, number=0
    )


def spell_observed(observed: Observed) -> bytes:
    """Spell what `lasting` left of a report."""
    return msgspec.msgpack.encode(observed)


def token(row: Row) -> TokenRow:
    """Read a row of `token_columns`."""
    return TokenRow(
        id=row[0],
        kind=row[1],
        name=row[2],
        scope=row[3],
        cluster=row[4],
        created_at=at(row[5]),
        expires_at=moment(row[6]),
        secret_hash=row[7] or "",
        public_key=row[8] or "",
        used_by=row[9],
        revoked=bool(row[10]),
    )


def event(row: Row) -> EventView:
    """Read a row of `events_of_all`."""
    return EventView(row[0], at(row[1]), row[2], row[3], row[4], row[5])
