"""The life of a kernel: the one table that manager, agent, database and tests share.

A kernel is one-shot: once it has left a state it never returns to it. A state is therefore a
logical clock: of two observations of one kernel, the later state is the truth (see `merge`).
A retry is a *new* kernel, of the session's next attempt.

The states up to RUNNING are also goals: the manager asks all kernels of a gang for the next
state that only a whole gang may enter (see `BARRIERS`), so none of them runs ahead.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


@enum.unique
class KernelState(enum.IntEnum):
    """Where a kernel is in its life. Larger is later; the gaps leave room for more."""

    PENDING = 0  # known, holds nothing
    ASSIGNED = 100  # bound to an agent, slots reserved
    PREPARING = 200  # the agent has it: image, network, keys, files
    CREATED = 300  # the container exists and waits for the gang
    STARTING = 400  # the container runs, its runner is coming up
    READY = 430  # the runner listens and waits for the gang
    MESHED = 460  # the runner has reached every peer by name and waits for the gang
    RUNNING = 500  # released: the user's command runs, or the container idles for its user
    STOPPING = 600  # told to stop; the grace period runs
    EXITED = 700  # ended by itself; has an exit code
    STOPPED = 710  # ended by us
    REJECTED = 720  # never ran: no image, no device, no address
    LOST = 730  # its agent is gone, by the manager's verdict
    REMOVED = 800  # nothing of it is left on its host; its slots are free


class Owner(enum.Enum):
    """Who may write a step. Every state has one owner of its exits, the verdict LOST apart."""

    SCHEDULER = "scheduler"
    AGENT = "agent"
    LIVENESS = "liveness"  # the manager's judge of silent agents


_S = KernelState

BARRIERS: Final = (_S.CREATED, _S.READY, _S.MESHED, _S.RUNNING)
"""Goals in order; a gang gets the next one when all of its kernels have reached this one."""

_ON_THE_WAY: Final = (_S.ASSIGNED, _S.PREPARING, _S.CREATED)
_STARTED: Final = (_S.STARTING, _S.READY, _S.MESHED, _S.RUNNING)
ENDED: Final = frozenset({_S.EXITED, _S.STOPPED, _S.REJECTED, _S.LOST, _S.REMOVED})

TRANSITIONS: Final[Mapping[tuple[KernelState, KernelState], Owner]] = {
    (_S.PENDING, _S.ASSIGNED): Owner.SCHEDULER,
    (_S.PENDING, _S.STOPPED): Owner.SCHEDULER,  # cancelled in the queue
    (_S.ASSIGNED, _S.PREPARING): Owner.AGENT,
    (_S.PREPARING, _S.CREATED): Owner.AGENT,
    (_S.CREATED, _S.STARTING): Owner.AGENT,
    (_S.STARTING, _S.READY): Owner.AGENT,
    (_S.READY, _S.MESHED): Owner.AGENT,
    (_S.MESHED, _S.RUNNING): Owner.AGENT,
    **{(state, _S.REJECTED): Owner.AGENT for state in _ON_THE_WAY},
    **{(state, _S.STOPPED): Owner.AGENT for state in _ON_THE_WAY},
    **{(state, _S.STOPPING): Owner.AGENT for state in _STARTED},
    **{(state, _S.EXITED): Owner.AGENT for state in _STARTED},
    (_S.STOPPING, _S.STOPPED): Owner.AGENT,
    (_S.STOPPING, _S.EXITED): Owner.AGENT,
    **{(state, _S.LOST): Owner.LIVENESS for state in (*_ON_THE_WAY, *_STARTED, _S.STOPPING)},
    **{(state, _S.REMOVED): Owner.AGENT for state in (_S.EXITED, _S.STOPPED, _S.REJECTED, _S.LOST)},
}


class IllegalTransition(AssertionError):  # noqa: N818 - it is a bug, not an error to handle
    """Some code tried a step that the table does not have."""


def advance(current: KernelState, target: KernelState, owner: Owner) -> KernelState:
    """Move one kernel one step; the only function that returns a new state.

    Raises:
        IllegalTransition: the table has no such step, or it belongs to another owner.
    """
    allowed = TRANSITIONS.get((current, target))
    if allowed is not owner:
        raise IllegalTransition(
            f"{current.name} -> {target.name} by {owner.value}, "
            f"owned by {allowed.value if allowed else 'nobody'}"
        )
    return target


def merge(known: KernelState, reported: KernelState) -> KernelState:
    """Fold a report, maybe late or repeated, into what is known: the later state wins."""
    return max(known, reported)


def path(known: KernelState, reported: KernelState, owner: Owner) -> tuple[KernelState, ...] | None:
    """Find the shortest steps of one owner between two observations.

    Reports may skip states (the agent was quick, or a report was lost); the table may not.

    Returns:
        The states to enter, in order, without `known`; empty when both are the same state;
        None when the owner has no way from one to the other.
    """
    todo: list[tuple[KernelState, tuple[KernelState, ...]]] = [(known, ())]
    seen = {known}
    for state, steps in todo:
        if state is reported:
            return steps
        for (before, after), allowed in TRANSITIONS.items():
            if before is state and after not in seen and allowed is owner:
                seen.add(after)
                todo.append((after, (*steps, after)))
    return None
