"""States of jobs in SLURM's words, out of a session's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from phalanx_slurm.wrong import WrongError
from phalanx_wire.api import SessionState, SessionView

SHORT: Final[Mapping[str, str]] = {
    "PENDING": "PD",
    "CONFIGURING": "CF",
    "RUNNING": "R",
    "COMPLETING": "CG",
    "COMPLETED": "CD",
    "FAILED": "F",
    "CANCELLED": "CA",
    "TIMEOUT": "TO",
    "NODE_FAIL": "NF",
    "OUT_OF_MEMORY": "OOM",
    "PREEMPTED": "PR",
    "SUSPENDED": "S",
    "BOOT_FAIL": "BF",
    "DEADLINE": "DL",
    "REQUEUED": "RQ",
    "RESIZING": "RS",
    "REVOKED": "RV",
    "SPECIAL_EXIT": "SE",
    "STOPPED": "ST",
}
LONG: Final[Mapping[str, str]] = {short: name for name, short in SHORT.items()}
_PLAIN: Final[Mapping[SessionState, str]] = {
    "pending": "PENDING",
    "scheduled": "CONFIGURING",
    "preparing": "CONFIGURING",
    "starting": "CONFIGURING",
    "running": "RUNNING",
    "stopping": "COMPLETING",
    "succeeded": "COMPLETED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "timeout": "TIMEOUT",
}
_ACCOUNTED: Final[Mapping[str, str]] = {"CONFIGURING": "PENDING", "COMPLETING": "RUNNING"}
_ASKED: Final[Mapping[str, tuple[SessionState, ...]]] = {
    "PENDING": ("pending",),
    "CONFIGURING": ("scheduled", "preparing", "starting"),
    "RUNNING": ("running",),
    "COMPLETING": ("stopping",),
    "COMPLETED": ("succeeded",),
    "FAILED": ("failed",),
    "NODE_FAIL": ("failed",),
    "OUT_OF_MEMORY": ("failed",),
    "CANCELLED": ("cancelled",),
    "TIMEOUT": ("timeout",),
}


def of(view: SessionView) -> str:
    """Tell the state of a job as the queue shows it."""
    if view.state == "failed":
        states = {kernel.state for kernel in view.kernels}
        reasons = " ".join(kernel.reason or "" for kernel in view.kernels)
        if "ran out of memory" in reasons:
            return "OUT_OF_MEMORY"
        if "lost" in states:
            return "NODE_FAIL"
    return _PLAIN[view.state]


def accounted(view: SessionView) -> str:
    """Tell the state as accounting does, which knows nothing between waiting, running and over."""
    state = of(view)
    return _ACCOUNTED.get(state, state)


def named(text: str) -> str:
    """Read a state, `R` or `running`.

    Raises:
        WrongError: there is none of this name.
    """
    upper = text.strip().upper()
    name = LONG.get(upper, upper)
    if name not in SHORT:
        raise WrongError(f"Invalid job state specified: {text[:80]}")
    return name


def sessions_in(names: frozenset[str]) -> tuple[SessionState, ...]:
    """Which sessions can be in one of these states."""
    return tuple(dict.fromkeys(state for name in sorted(names) for state in _ASKED.get(name, ())))
