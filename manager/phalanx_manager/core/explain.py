"""Why things are as they are, in sentences."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from phalanx_manager.core.model import AgentRecord, Drain, Kernel, Session, SessionRow
from phalanx_wire.api import ENDED_STATES, NodeState, SessionState
from phalanx_wire.lifecycle import ENDED, KernelState
from phalanx_wire.slots import Slots, spell_bytes, spell_cpu

SUSPECT_S: Final = 15.0
UNREACHABLE_S: Final = 30.0

_S = KernelState
_NOW: Final = {
    _S.PENDING: "waits for a place",
    _S.ASSIGNED: "waits for its agent to take it",
    _S.PREPARING: "is being prepared",
    _S.CREATED: "is created and waits for the others",
    _S.STARTING: "is starting",
    _S.READY: "is up and waits for the others",
    _S.MESHED: "has reached the others and waits for them to reach it",
    _S.RUNNING: "runs",
    _S.STOPPING: "is stopping",
    _S.EXITED: "has exited",
    _S.STOPPED: "was stopped",
    _S.REJECTED: "could not be started",
    _S.LOST: "is lost",
    _S.REMOVED: "is removed",
}
_ENDS: Final[Mapping[SessionState, str]] = {
    "failed": "failed",
    "cancelled": "was stopped",
    "timeout": "reached its time limit",
    "succeeded": "succeeded",
}


def who(kernel: Kernel) -> str:
    """Name a kernel: `rank 2 (sub2) on agent b`."""
    where = f" on agent {kernel.agent}" if kernel.agent is not None else ""
    return f"rank {kernel.rank} ({kernel.host_name}){where}"


def failure(kernel: Kernel) -> str:
    """Say what a kernel that ended did to fail, with its name."""
    return f"{who(kernel)} {_end(kernel)}"


def kernel_event(kernel: Kernel, state: KernelState) -> str:
    """Say that a kernel has entered a state; `kernel` is as it is after all that was reported."""
    if state in ENDED and state is not _S.REMOVED:
        return f"{who(kernel)} {_end(kernel)}"
    return f"{who(kernel)} {_NOW[state]}"


def session_event(row: SessionRow) -> str:
    """Say that a session has entered its state."""
    session = row.session
    count = len(row.kernels)
    containers = "its container" if count == 1 else f"all {count} containers"
    match session.state:
        case "pending":
            return "waits for a place"
        case "scheduled":
            agents = list(dict.fromkeys(str(kernel.agent) for kernel in row.kernels))
            shown = ", ".join(agents[:8]) + (" and others" if len(agents) > 8 else "")
            return f"placed on {shown}"
        case "preparing":
            return f"{containers} are being prepared" if count > 1 else f"{containers} is prepared"
        case "starting":
            return f"{containers} {'have' if count > 1 else 'has'} been created and start"
        case "running":
            return f"{containers} {'have reached each other and run' if count > 1 else 'runs'}"
        case "stopping":
            return session.stop.text if session.stop is not None else "is stopping"
        case "succeeded":
            return "it has succeeded"
        case "failed" | "cancelled" | "timeout":
            return session.reason


def requeue_event(ended: Session, onward: Session) -> str:
    """Say that a session goes back to the queue."""
    return f"attempt {ended.attempt} {_ENDS[ended.state]}, attempt {onward.attempt} is next: " + (
        ended.reason
    )


def kernel_reason(kernel: Kernel) -> str | None:
    """Say why a kernel is in its state; None when there is nothing to say."""
    if kernel.ended_as is None:
        return kernel.detail or None
    return _end(kernel) + (f"; {kernel.detail}" if kernel.detail else "")


def session_reason(row: SessionRow) -> str | None:
    """Say why a session is not (or no longer) running; None when there is nothing to say."""
    session = row.session
    if session.state == "pending" and session.held:
        return f"it is held; to let it go: phalanx release {session.name}"
    if session.state == "pending" and session.because:
        waits = f"; {session.reason}" if session.reason else _pause(session)
        return f"attempt {session.attempt} after: {session.because}{waits}"
    if session.kept_until is not None:
        return f"{session.reason}; {_kept(session.kept_until)}"
    if session.state in ENDED_STATES or session.state == "pending":
        return session.reason or None
    if session.stop is not None:
        left = [kernel for kernel in row.kernels if not kernel.ended]
        return f"{session.stop.text}; {len(left)} of {len(row.kernels)} containers still stop"
    if session.state == "running":
        return None
    if session.network is not None and session.network.problem:
        return f"its network on agent {session.network.owner}: {session.network.problem}"
    return laggards(row)


def _kept(until: datetime) -> str:
    """Say that containers are kept for a look."""
    return (
        f"its containers are kept until {until:%H:%M:%S} UTC: `phalanx cp` reads their files, "
        "`phalanx stop` lets them go"
    )


def _pause(session: Session) -> str:
    """Say when a session that pauses between attempts comes into the queue."""
    if session.not_before is None:
        return ""
    return f"; it is not placed before {session.not_before:%H:%M:%S} UTC"


def laggards(row: SessionRow) -> str:
    """Say what the slowest kernels of a starting session do."""
    least = min(kernel.state for kernel in row.kernels)
    slow = [kernel for kernel in row.kernels if kernel.state is least]
    speaking = next((kernel for kernel in slow if kernel.detail), slow[0])
    said = f"{who(speaking)} {_NOW[least]}"
    if speaking.detail:
        said += f": {speaking.detail}"
    others = len(slow) - 1
    return said + (f", and {others} more like it" if others else "")


def agent_state(record: AgentRecord, now: datetime) -> tuple[NodeState, str | None]:
    """Tell how an agent is, and why it is not ready."""
    if record.lost:
        return "lost", "it was silent for so long that its kernels were given up"
    if record.seen_at is None or record.observed is None:
        return "unreachable", "it has joined but said nothing yet"
    silent_s = (now - record.seen_at).total_seconds()
    if silent_s > UNREACHABLE_S:
        return "unreachable", f"silent for {silent_s:.0f} s"
    if silent_s > SUSPECT_S:
        return "suspect", f"silent for {silent_s:.0f} s; it gets no new work"
    if record.observed.engine.problem:
        return "degraded", record.observed.engine.problem
    if record.drain is not None:
        return "drained", drain_reason(record.drain)
    return "ready", None


def drain_reason(drain: Drain) -> str:
    """Say why a host gets no new work, and until when what runs there may go on."""
    if drain.deadline is None:
        return drain.reason
    return f"{drain.reason}; what runs there is stopped at {drain.deadline:%Y-%m-%d %H:%M:%S} UTC"


def nobody(records: Iterable[AgentRecord], now: datetime) -> str:
    """Say why no agent of a cluster can take work."""
    members = list(records)
    if not members:
        return "no agent has joined this cluster yet"
    said = [f"{r.name} is {agent_state(r, now)[0]}" for r in members[:6]]
    more = f" and {len(members) - 6} more" if len(members) > 6 else ""
    return f"no agent of this cluster is ready: {', '.join(said)}{more}"


def spell_slots(slots: Slots, gpu_model: str = "", *, pids: bool = False) -> str:
    """Spell amounts for people: `cpu 2, mem 4 GiB, gpu 1`, and the processes where they matter."""
    parts = [f"cpu {spell_cpu(slots.cpu_milli)}", f"mem {spell_bytes(slots.mem_bytes)}"]
    if slots.gpu:
        parts.append(f"gpu {gpu_model + ':' if gpu_model else ''}{slots.gpu}")
    if pids:
        parts.append(f"pids {slots.pids}")
    return ", ".join(parts)


def spell_counts(texts: list[str]) -> str:
    """Spell equal texts once, with how many there are: `3 x a; b`."""
    return "; ".join(
        f"{count} x ({text})" if count > 1 else text for text, count in Counter(texts).items()
    )


def _end(kernel: Kernel) -> str:
    """Say how a kernel ended, without its name."""
    told = kernel.exit_code is not None or not kernel.message
    if kernel.ended_as is _S.EXITED and kernel.cause in ("", "exited") and told:
        return _exited(kernel.exit_code)
    if kernel.cause == "oom" and not kernel.message:
        limit = spell_bytes(kernel.slots.mem_bytes)
        return f"ran out of memory (its limit is {limit}) and {_exited(kernel.exit_code)}"
    if kernel.message:
        return f"{_NOW[kernel.ended_as or kernel.state]}: {kernel.message}"
    if kernel.cause == "engine-restart":
        return "ended because the engine of its host restarted"
    return _NOW[kernel.ended_as or kernel.state]


def _exited(code: int | None) -> str:
    if code is None:
        return "ended and its exit code is not known"
    if 128 < code < 128 + signal.NSIG:
        try:
            return f"exited with code {code} ({signal.Signals(code - 128).name})"
        except ValueError:
            return f"exited with code {code} (signal {code - 128})"
    return f"exited with code {code}"
