"""What time brings: deadlines, time limits, agents that stay silent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from phalanx_manager.core.explain import kernel_event, who
from phalanx_manager.core.model import Drain, Kernel, SessionRow, Snapshot, Stop, StopCause
from phalanx_manager.core.notice import Decision, decisions
from phalanx_manager.core.observe import KernelChange, moved
from phalanx_manager.core.session import lost_after_s
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.lifecycle import TRANSITIONS, KernelState, Owner

_S = KernelState
DEADLINE_S: Final[Mapping[KernelState, float | None]] = {
    _S.PENDING: None,  # the queue may be long
    _S.ASSIGNED: 60.0,
    _S.PREPARING: 1_800.0,  # images are large and lines are slow
    _S.CREATED: 1_860.0,  # waits for whoever is PREPARING
    _S.STARTING: 120.0,
    _S.READY: 900.0,  # others may attach to their network one after the other
    _S.MESHED: 120.0,
    _S.RUNNING: None,
    _S.STOPPING: 120.0,  # beyond the grace
    _S.EXITED: 120.0,
    _S.STOPPED: 120.0,
    _S.REJECTED: 120.0,
    _S.LOST: None,  # its host may be away for long
    _S.REMOVED: None,
}
"""How long a kernel may stay in a state. Up to MESHED the session is stopped when it is over;
from STOPPING on nothing is torn down harder: the slots stay taken, and the kernel says so."""

LOST_MARGIN_S: Final = 5.0
"""An agent ends its kernels by `lost_after_s` after the last beat that it sent and we answered; we
count from when we last heard anything, which was later, and wait so much longer: for clocks that
go at different speeds."""

_STARTING: Final = frozenset(
    {_S.ASSIGNED, _S.PREPARING, _S.CREATED, _S.STARTING, _S.READY, _S.MESHED}
)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What must be done now, and when to look again.

    Attributes:
        decisions: of signals to commands.
        lost: kernels of agents that stayed silent for longer than their sessions bear, by agent.
        gone: agents that stayed silent for so long that they are shown as lost.
        overdue: kernels whose end takes too long, each with the sentence to tell.
        looked_at: attempts whose containers have been kept for long enough.
        next_at: the next moment that something may be due; None when nothing is in sight.
    """

    stops: tuple[tuple[SessionId, Stop], ...]
    decisions: tuple[Decision, ...]
    lost: Mapping[AgentId, tuple[KernelChange, ...]]
    gone: tuple[AgentId, ...]
    overdue: tuple[tuple[KernelChange, str], ...]
    looked_at: tuple[tuple[SessionId, int], ...]
    next_at: datetime | None


def rule(
    snapshot: Snapshot, silence_s: Mapping[AgentId, float], lost_after_s: float, now: datetime
) -> Ruling:
    """Judge all sessions and agents. `silence_s` is how long each agent has said nothing, and
    `lost_after_s` for how long it may before it is shown as lost; sessions have their own.
    """
    stops: list[tuple[SessionId, Stop]] = []
    due: list[datetime] = []
    overdue: list[tuple[KernelChange, str]] = []
    looked_at: list[tuple[SessionId, int]] = []
    drains = {name: one.drain for name, one in snapshot.agents.items() if one.drain is not None}
    for row in snapshot.rows():
        if row.session.kept_until is None:
            overdue.extend(_overdue(row, now, due))
        elif row.session.kept_until <= now:
            looked_at.append((row.session.id, row.session.attempt))
        else:
            due.append(row.session.kept_until)
        if row.session.state in ENDED_STATES or row.session.stop is not None:
            continue
        for at, stop in (*_limits(row, silence_s, now), *_drained(drains, row, now)):
            if at <= now:
                stops.append((row.session.id, stop))
                break
            due.append(at)
    lost: dict[AgentId, tuple[KernelChange, ...]] = {}
    for name, loss in _losses(snapshot, silence_s, now):
        lost[name] = (*lost.get(name, ()), loss)
    limit_s = lost_after_s + LOST_MARGIN_S
    gone = tuple(
        name
        for name, silence in silence_s.items()
        if silence > limit_s and name in snapshot.agents and not snapshot.agents[name].lost
    )
    due.extend(
        now + timedelta(seconds=limit_s - silence)
        for name, silence in silence_s.items()
        if silence <= limit_s and name in snapshot.agents
    )
    told = list(decisions(snapshot, now))
    due.extend(at for at, _ in told if at > now)
    return Ruling(
        stops=tuple(stops),
        decisions=tuple(decision for at, decision in told if at <= now),
        lost=lost,
        gone=gone,
        overdue=tuple(overdue),
        looked_at=tuple(looked_at),
        next_at=min(due, default=None),
    )


def _overdue(
    row: SessionRow, now: datetime, due: list[datetime]
) -> Iterator[tuple[KernelChange, str]]:
    """Find kernels whose end takes too long, and say it once: their slots stay taken."""
    session = row.session
    grace_s = session.spec.grace_s
    if session.stop is not None and session.stop.grace_s is not None:
        grace_s = session.stop.grace_s
    for kernel in row.kernels:
        limit = DEADLINE_S[kernel.state]
        if limit is None or kernel.state in _STARTING or kernel.agent is None or kernel.detail:
            continue
        at = kernel.state_at + timedelta(seconds=limit + grace_s)
        if at > now:
            due.append(at)
            continue
        age_s = (now - kernel.state_at).total_seconds()
        detail = f"not gone after {age_s:.0f} s: its slots stay taken; look at its agent's log"
        after = replace(kernel, detail=detail)
        text = f"{who(kernel)} is {kernel.state.name} and {detail}"
        yield KernelChange(kernel.state, (), Owner.LIVENESS, after), text


def _limits(
    row: SessionRow, silence_s: Mapping[AgentId, float], now: datetime
) -> Iterator[tuple[datetime, Stop]]:
    session = row.session
    limit = session.time_limit_s
    if limit is not None and session.started_at is not None:
        yield (
            session.started_at + timedelta(seconds=limit),
            Stop(StopCause.TIME_LIMIT, f"its time limit of {limit:g} s is over", now),
        )
    slow = [kernel for kernel in row.kernels if kernel.state in _STARTING]
    if not slow:
        return
    # The slowest keep the others waiting, so they are the ones to name.
    for kernel in sorted(slow, key=lambda kernel: (kernel.state, kernel.state_at)):
        allowed = DEADLINE_S[kernel.state]
        if allowed is not None:
            text = _late(kernel, silence_s, now)
            yield (
                kernel.state_at + timedelta(seconds=allowed),
                Stop(StopCause.DEADLINE, text, now, rank=kernel.rank),
            )


def _drained(
    drains: Mapping[AgentId, Drain], row: SessionRow, now: datetime
) -> Iterator[tuple[datetime, Stop]]:
    """Stop what still runs on a host that was to be empty by now."""
    for kernel in row.kernels if drains else ():
        drain = drains.get(kernel.agent) if kernel.agent is not None else None
        if drain is not None and drain.deadline is not None and not kernel.ended:
            text = f"agent {kernel.agent} is drained: {drain.reason}"
            yield drain.deadline, Stop(StopCause.DRAIN, text, now)


def _late(kernel: Kernel, silence_s: Mapping[AgentId, float], now: datetime) -> str:
    age_s = (now - kernel.state_at).total_seconds()
    said = f"{who(kernel)} has been {kernel.state.name} for {age_s:.0f} s"
    if kernel.detail:
        said += f": {kernel.detail}"
    silent = silence_s.get(kernel.agent, 0.0) if kernel.agent is not None else 0.0
    if silent > 15:
        said += f"; agent {kernel.agent} has been silent for {silent:.0f} s"
    return said


def _losses(
    snapshot: Snapshot, silence_s: Mapping[AgentId, float], now: datetime
) -> Iterator[tuple[AgentId, KernelChange]]:
    """Give up what has been silent for longer than its session bears."""
    for row in snapshot.rows():
        limit_s = lost_after_s(row.session) + LOST_MARGIN_S
        for kernel in row.kernels:
            silent_s = silence_s.get(kernel.agent, 0.0) if kernel.agent is not None else 0.0
            step = TRANSITIONS.get((kernel.state, _S.LOST))
            if kernel.agent is None or step is not Owner.LIVENESS or silent_s <= limit_s:
                continue
            message = f"its agent has been silent for {silent_s:.0f} s"
            after = moved(
                replace(kernel, cause="lost", message=message, detail=""), (_S.LOST,), now
            )
            text = kernel_event(after, _S.LOST)
            change = KernelChange(kernel.state, (_S.LOST,), Owner.LIVENESS, after, (text,))
            yield kernel.agent, change
