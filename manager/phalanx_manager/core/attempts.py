"""What becomes of a session whose attempt has ended: its end, or its next attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from phalanx_manager.core.model import Kernel, Session, StopCause
from phalanx_manager.core.session import NETWORK_TRIES, host_trouble
from phalanx_wire.api import SessionState
from phalanx_wire.ids import SessionId, kernel_id
from phalanx_wire.lifecycle import KernelState

LAST_ATTEMPT: Final = 1_000
"""No session is tried more often, whatever it asks for."""
HASTY_S: Final = 60.0
"""An attempt that has not run for so long is followed by a pause that doubles each time."""
LONGEST_PAUSE_S: Final = 300.0

_APART_CAUSES: Final = frozenset({"hosts-apart", "mesh-failed"})


def kept(session: Session, now: datetime) -> Session:
    """Have the containers of an attempt that has just failed kept, where that was asked for."""
    hold_s = session.spec.hold_on_failure_s
    stop = session.stop
    if hold_s is None or session.state != "failed" or (stop is not None and stop.then == "end"):
        return session
    return replace(session, kept_until=now + timedelta(seconds=hold_s))


def onward(session: Session, kernels: Sequence[Kernel], now: datetime) -> Session:
    """Say what becomes of a session whose attempt has just ended, all kernels with it.

    Returns:
        The session ended for good, its reason maybe longer; or pending, as its next attempt.
    """
    charged = session.charged + (1 if _is_charged(session, kernels) else 0)
    if not _wants_more(session, kernels, charged):
        tried = session.spec.max_attempts > 1 and session.state == "failed"
        many = f"; it was tried {session.attempt} times" if tried and session.attempt > 1 else ""
        return replace(session, charged=charged, reason=session.reason + many)
    if session.attempt >= LAST_ATTEMPT:
        text = f"{session.reason}; it is not tried again after {LAST_ATTEMPT} attempts"
        return replace(session, charged=charged, reason=text)
    due = max(now + timedelta(seconds=_pause_s(session, now)), session.not_before or now)
    return replace(
        session,
        state="pending",
        attempt=session.attempt + 1,
        started_at=None,
        ended_at=None,
        stop=None,
        reason="",
        exit_code=None,
        failed_rank=None,
        network=None,
        charged=charged,
        because=session.reason,
        not_before=due if due > now else None,
        warned_at=None,
        extended_s=0.0,
        kept_until=None,
    )


def fresh(
    session: SessionId, attempt: int, kernels: Sequence[Kernel], now: datetime
) -> tuple[Kernel, ...]:
    """Make the kernels of a next attempt out of those before it: new ones of the same sizes."""
    return tuple(
        Kernel(
            id=kernel_id(session, attempt, before.rank),
            session=session,
            rank=before.rank,
            role=before.role,
            replica=before.replica,
            host_name=before.host_name,
            slots=before.slots,
            shm_bytes=before.shm_bytes,
            state=KernelState.PENDING,
            state_at=now,
            gpu_model=before.gpu_model,
        )
        for before in kernels
    )


def _wants_more(session: Session, kernels: Sequence[Kernel], charged: int) -> bool:
    spec, stop = session.spec, session.stop
    cause = stop.cause if stop is not None else None
    if cause in (StopCause.USER, StopCause.DEPENDENCY) or (stop is not None and stop.then == "end"):
        return False
    if stop is not None and stop.then == "again":
        return True
    ends: frozenset[SessionState] = frozenset({"succeeded"})
    if session.state in ends:
        return False
    if cause is StopCause.TIME_LIMIT or _was_warned(session):
        # SLURM's programs expect TIMEOUT at the limit, but where a warning lets jobs save first.
        return spec.requeue and (spec.slurm is None or spec.warn_signal is not None)
    if cause is StopCause.DRAIN or host_trouble(kernels) is not None:
        return spec.requeue or spec.max_attempts > 1
    if spec.requeue and _were_apart(session, kernels):
        return charged < max(spec.max_attempts, NETWORK_TRIES)
    return charged < spec.max_attempts


def _were_apart(session: Session, kernels: Sequence[Kernel]) -> bool:
    """Tell whether it failed before any command, because containers or their hosts did not reach
    each other. That may pass; hosts that never do are told after a few tries.
    """
    rank = session.failed_rank
    return rank is not None and kernels[rank].cause in _APART_CAUSES


def _is_charged(session: Session, kernels: Sequence[Kernel]) -> bool:
    """Tell whether an end counts as the session's own failure."""
    if session.state != "failed" or host_trouble(kernels) is not None:
        return False
    stop, network = session.stop, session.network
    if network is not None and network.failed and stop is not None and stop.then == "again":
        return False
    return not (_was_warned(session) and session.spec.requeue)


def _was_warned(session: Session) -> bool:
    """Tell whether it was on its way out already: a command may end by the warning itself."""
    return session.warned_at is not None


def _pause_s(session: Session, now: datetime) -> float:
    began = session.started_at
    if began is not None and (now - began).total_seconds() >= HASTY_S:
        return 0.0
    return min(2.0 ** min(session.attempt - 1, 16), LONGEST_PAUSE_S)
