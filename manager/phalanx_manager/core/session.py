"""What a session's state is: a fold over its kernels, never a thing that is assigned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, assert_never

from phalanx_manager.core import explain
from phalanx_manager.core.model import Kernel, Session, SessionRow, Stop, StopCause
from phalanx_wire.api import ENDED_STATES, SessionState
from phalanx_wire.lifecycle import KernelState

CLIMB: Final[Mapping[KernelState, SessionState]] = {
    KernelState.PENDING: "pending",
    KernelState.ASSIGNED: "scheduled",
    KernelState.PREPARING: "preparing",
    KernelState.CREATED: "preparing",
    KernelState.STARTING: "starting",
    KernelState.READY: "starting",
    KernelState.MESHED: "starting",
    KernelState.RUNNING: "running",
    KernelState.STOPPING: "stopping",
}

STEPS: Final[Mapping[SessionState, frozenset[SessionState]]] = {
    "pending": frozenset({"scheduled", "cancelled"}),
    "scheduled": frozenset({"preparing", "stopping", "failed"}),
    "preparing": frozenset({"starting", "stopping", "failed"}),
    "starting": frozenset({"running", "stopping", "failed", "succeeded"}),
    "running": frozenset({"stopping", "failed", "succeeded"}),
    "stopping": frozenset({"cancelled", "failed", "succeeded", "timeout"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "timeout": frozenset(),
}
"""Every step of an attempt there is; a test walks all joint states of a gang to find just these.
The session itself may go from an ended attempt to the next one, which is pending again."""

TIMEOUT_CODE: Final = 124
NEVER_RAN_CODE: Final = 125
CANCELLED_CODE: Final = 130

LOST_AFTER_S: Final = 300.0
"""Of sessions that were admitted before each was given its own."""

NETWORK_TRIES: Final = 3
"""A session whose network an engine would not make is given other addresses so many times."""

_BROKEN_CAUSES: Final = frozenset({"mesh-failed", "start-failed", "fenced", "engine-restart"})
_UNBEGUN_CAUSES: Final = frozenset({"mesh-failed", "start-failed"})
_WHOLE: Final = frozenset({KernelState.MESHED, KernelState.RUNNING})
_HOST_CAUSES: Final = frozenset({"lost", "fenced", "engine-restart"})


def failed(session: Session, kernel: Kernel) -> bool:
    """Tell whether a kernel ended otherwise than its session wanted, while nobody stopped it."""
    match kernel.ended_as:
        case None:
            return False
        case KernelState.EXITED:
            idle = idles(session, kernel.rank)
            return kernel.exit_code != 0 or kernel.cause in _BROKEN_CAUSES or idle
        case _:
            return True


def idles(session: Session, rank: int) -> bool:
    """Tell whether a rank runs no command: it waits for exec and ssh until it is stopped."""
    return session.spec.kind == "interactive" or (session.spec.run_on == "main" and rank > 0)


def lost_after_s(session: Session) -> float:
    """Tell after how long a silence of their agent its kernels are given up."""
    return session.spec.lost_after_s or LOST_AFTER_S


def settle(session: Session, kernels: Sequence[Kernel], now: datetime) -> Session:
    """Fold a session: its stop cause if it has one now, its state, its outcome.

    `kernels` are all of the attempt, in rank order, at least one. Folding twice changes nothing.
    """
    assert kernels  # noqa: S101 - a session without kernels is our own mistake
    if session.state in ENDED_STATES:
        return session
    if session.started_at is None and _may_run(session, kernels):
        session = replace(session, started_at=now)
    failed_rank = session.failed_rank
    if session.stop is None and failed_rank is None:
        failed_rank = first_failure(session, kernels)
    session = replace(session, failed_rank=failed_rank)
    session = replace(session, stop=session.stop or _stop(session, kernels, now))
    state = fold(session, kernels)
    if state not in ENDED_STATES:
        reason = session.reason if state == session.state == "pending" else ""
        return replace(session, state=state, reason=reason)
    return replace(
        session,
        state=state,
        ended_at=now,
        exit_code=_exit_code(session, state, kernels),
        reason=_outcome(session, state, kernels),
    )


def fold(session: Session, kernels: Sequence[Kernel]) -> SessionState:
    """Derive the state of one attempt from its stop cause, its first failure and its kernels."""
    if all(kernel.ended for kernel in kernels):
        return _end(session, kernels)
    if session.stop is not None:
        return "stopping"
    return CLIMB[min(kernel.state for kernel in kernels if not kernel.ended)]


def is_gone(row: SessionRow) -> bool:
    """Tell whether a session has ended and nothing of it is left on any host."""
    network = row.session.network
    return (
        row.session.state in ENDED_STATES
        and not any(kernel.holds for kernel in row.kernels)
        and (network is None or network.released)
        and all(is_gone(past) for past in row.past)
    )


def host_trouble(kernels: Sequence[Kernel]) -> Kernel | None:
    """Find a kernel that its host took along: lost, fenced, or ended by its engine's restart."""
    return next((kernel for kernel in kernels if kernel.cause in _HOST_CAUSES), None)


def first_failure(session: Session, kernels: Sequence[Kernel]) -> int | None:
    """Find the rank to blame: the lowest one that failed, or that ended before all could start."""
    for kernel in kernels:
        if failed(session, kernel):
            return kernel.rank
    if session.started_at is None:
        return next((kernel.rank for kernel in kernels if kernel.ended), None)
    return None


def _stop(session: Session, kernels: Sequence[Kernel], now: datetime) -> Stop | None:
    main = kernels[0]
    spec = session.spec
    rank = session.failed_rank
    network = session.network
    if network is not None and network.failed and not all(kernel.ended for kernel in kernels):
        text = f"its network could not be made by agent {network.owner}: {network.problem}"
        again = session.attempt < NETWORK_TRIES
        return Stop(StopCause.KERNEL_FAILED, text, now, then="again" if again else "")
    if spec.kind == "batch" and spec.run_on == "main" and main.ended and len(kernels) > 1:
        text = explain.failure(main) if failed(session, main) else "the command in main1 has ended"
        return Stop(StopCause.MAIN_EXITED, text, now, rank=0)
    if rank is None or (spec.on_failure == "continue" and _was_running(session, kernels, rank)):
        return None
    return Stop(StopCause.KERNEL_FAILED, explain.failure(kernels[rank]), now, rank=rank)


def _end(session: Session, kernels: Sequence[Kernel]) -> SessionState:
    if session.stop is None:
        return "succeeded" if session.failed_rank is None else "failed"
    match session.stop.cause:
        case StopCause.USER | StopCause.REQUEUE | StopCause.DRAIN | StopCause.DEPENDENCY:
            return "cancelled"
        case StopCause.TIME_LIMIT:
            return "timeout"
        case StopCause.KERNEL_FAILED | StopCause.DEADLINE:
            return "failed"
        case StopCause.MAIN_EXITED:
            return "failed" if failed(session, kernels[0]) else "succeeded"
        case _:
            assert_never(session.stop.cause)


def _exit_code(session: Session, state: SessionState, kernels: Sequence[Kernel]) -> int:
    if state == "succeeded":
        return 0
    if state == "cancelled":
        return CANCELLED_CODE
    if state == "timeout":
        return TIMEOUT_CODE
    blamed = session.stop.rank if session.stop and session.stop.rank is not None else None
    rank = blamed if blamed is not None else session.failed_rank
    code = kernels[rank].exit_code if rank is not None else None
    return code or NEVER_RAN_CODE


def _outcome(session: Session, state: SessionState, kernels: Sequence[Kernel]) -> str:
    if state == "succeeded":
        return ""
    blamed = session.failed_rank
    if session.stop is not None:
        text = session.stop.text
    else:
        text = explain.failure(kernels[blamed]) if blamed is not None else ""
    trouble = host_trouble(kernels)
    if state != "failed" or trouble is None or trouble.rank == blamed:
        return text
    # Its neighbours often notice first, and are the ones to blame; the cause is this.
    return f"{text}; {explain.failure(trouble)}"


def _was_running(session: Session, kernels: Sequence[Kernel], rank: int) -> bool:
    """Tell whether a rank failed while running; before that a failure is always the gang's."""
    return session.started_at is not None and kernels[rank].cause not in _UNBEGUN_CAUSES


def _may_run(session: Session, kernels: Sequence[Kernel]) -> bool:
    """Tell whether the commands may start now, which nobody can take back: all of a gang have
    reached each other, and none has ended. One that ends afterwards is missed by no barrier.
    """
    if len(kernels) > 1:
        return session.stop is None and all(kernel.state in _WHOLE for kernel in kernels)
    only = kernels[0]
    return only.state is KernelState.RUNNING or only.ended_as is KernelState.EXITED
