"""From what is found of a kernel to what the manager is told: state, cause and sentence."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Final, assert_never

from phalanx_agent.core.seen import Absent, Created, Ended, Running, Seen
from phalanx_agent.core.step import Needs, next_op
from phalanx_runner.messages import FENCED_CODE
from phalanx_wire.control import KernelReport
from phalanx_wire.ids import KernelId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.slots import spell_bytes

ENGINE_RESTART_CODES: Final = (137, 143, 255)
ENGINE_START_S: Final = 5.0
"""An engine that comes up notes within this time what did not survive it."""

ENGINE_STOP_S: Final = 20.0
"""An engine that is told to stop ends its containers within this time, then goes away."""


_NO_CONTAINERD: Final = "containerd.sock: connect: "
"""An engine's words when the program is not there by which it keeps its containers."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a report needs beside what was found.

    Attributes:
        engine_started_at: Unix seconds.
        engine_gone_at: when the engine was last seen to go away; Unix seconds, 0 for never.
        lost_after_s: for how long the manager may be silent.
        detail: what the agent is doing for it now.
        host_key, user_key: public halves; empty until made.
    """

    kernel: KernelId
    goal: KernelState
    mem_bytes: int
    needs: Needs
    engine_started_at: float = 0.0
    engine_gone_at: float = 0.0
    lost_after_s: float = 0.0
    detail: str = ""
    host_key: str = ""
    user_key: str = ""
    warnings: tuple[str, ...] = ()
    folders: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a kernel ended."""

    state: KernelState
    cause: str
    message: str = ""
    exit_code: int | None = None


def report(seen: Seen, context: Context) -> KernelReport:
    """Say what is known of a kernel."""
    found = outcome(seen, context)
    match found:
        case Outcome():
            end = found
        case _:
            end = Outcome(found, "")
    return KernelReport(
        kernel=context.kernel,
        state=end.state,
        detail="" if isinstance(found, Outcome) else context.detail,
        cause=end.cause,
        message=end.message,
        exit_code=end.exit_code,
        container_id="" if isinstance(seen.container, Absent) else seen.container.container_id,
        host_key=context.host_key,
        user_key=context.user_key,
        warnings=tuple(dict.fromkeys((*context.warnings, *seen.runner.warnings))),
        folders=context.folders,
    )


def outcome(seen: Seen, context: Context) -> KernelState | Outcome:
    """Tell how far a kernel is, or how it ended."""
    match seen.container:
        case Absent():
            return _without_container(seen, context.goal)
        case Created(failure=failure):
            if failure:
                cause = "engine-restart" if _NO_CONTAINERD in failure else "start-failed"
                return Outcome(KernelState.EXITED, cause, f"The engine did not start it: {failure}")
            if seen.refused:
                return Outcome(KernelState.REJECTED, seen.refused_as, seen.refused)
            return _made(seen, context)
        case Running():
            return _running(seen)
        case Ended():
            return _ended(seen, seen.container, context)
        case _:
            assert_never(seen.container)


def _made(seen: Seen, context: Context) -> KernelState:
    """A container counts as created once nothing is left to do before its gang is whole."""
    done = next_op(KernelState.CREATED, seen, context.needs) is None
    known = context.host_key != "" and context.user_key != ""
    return KernelState.CREATED if done and known else KernelState.PREPARING


def _without_container(seen: Seen, goal: KernelState) -> KernelState | Outcome:
    if goal is KernelState.REMOVED and not (seen.material or seen.marked):
        return Outcome(KernelState.REMOVED, "")
    if seen.marked and not seen.asked.cancelled:
        gone = "Its container was removed by someone else; its exit code is not known."
        return Outcome(KernelState.EXITED, "exited", gone)
    if goal >= KernelState.STOPPING:
        return Outcome(KernelState.STOPPED, "cancelled")
    if seen.refused:
        return Outcome(KernelState.REJECTED, seen.refused_as, seen.refused)
    return KernelState.PREPARING


def _running(seen: Seen) -> KernelState:
    runner = seen.runner
    if seen.asked.cancelled:
        return KernelState.STOPPING
    if runner.released:
        return KernelState.RUNNING
    if runner.meshed:
        return KernelState.MESHED
    return KernelState.READY if runner.ready else KernelState.STARTING


def _ended(seen: Seen, container: Ended, context: Context) -> Outcome:
    code, runner = container.exit_code, seen.runner
    if _fenced(seen, code):
        said = (
            "Its host had not heard from the manager for so long that it was about to be given up "
            f"as lost (after {context.lost_after_s:g} s), so it was ended there."
        )
        return Outcome(KernelState.EXITED, "fenced", said, code)
    if seen.asked.cancelled:
        return Outcome(KernelState.STOPPED, "cancelled", "", code)
    if code == FENCED_CODE and not seen.material:
        said = (
            "Its files in its host's memory (runtime_dir) were lost while it ran, so that its time "
            "could not be extended any more, and it was ended."
        )
        return Outcome(KernelState.EXITED, "fenced", said, code)
    if seen.begun_again:
        said = (
            "Somebody started its container a second time, through the container engine of its "
            "host. Nothing is run twice, so it was ended; how its command ended is not known."
        )
        return Outcome(KernelState.EXITED, "engine-restart", said)
    if runner.failure is not None and not runner.released:
        failure = runner.failure
        return Outcome(KernelState.EXITED, failure.cause, failure.message, code or None)
    if (container.oom_killed or runner.oom_killed) and code != 0:
        said = f"It used more than its {spell_bytes(context.mem_bytes)} of memory."
        return Outcome(KernelState.EXITED, "oom", said, code)
    if code in ENGINE_RESTART_CODES:
        if _ended_with_engine(container, context):
            said = "The container engine of its host was restarted, which ended it."
            return Outcome(KernelState.EXITED, "engine-restart", said, code)
        if seen.vanished:
            said = (
                "Its end was not noticed by the container engine of its host, which had been hurt "
                "(was its containerd restarted?); how it ended is not known."
            )
            return Outcome(KernelState.EXITED, "engine-restart", said, code)
        if seen.killed:
            said = (
                "It was ended through the container engine of its host: the engine was being "
                "stopped, or somebody stopped the container by hand."
            )
            return Outcome(KernelState.EXITED, "engine-restart", said, code)
    if not runner.released and (runner.heard or context.goal < KernelState.RUNNING):
        said = f"The container ended with {code} before its command was started."
        return Outcome(KernelState.EXITED, "start-failed", said, code or None)
    said = runner.failure.message if runner.failure else explain(code)
    return Outcome(KernelState.EXITED, "exited", said, code)


def _fenced(seen: Seen, code: int) -> bool:
    """By us, or by its runner: then the code says so, if the command had not ended before."""
    told = seen.runner.failure is not None and seen.runner.failure.cause == "fenced"
    by_runner = code == FENCED_CODE and seen.runner.exited is None and (seen.lapsed or told)
    return seen.noted.fenced or by_runner


def _ended_with_engine(container: Ended, context: Context) -> bool:
    """The engine counts as restarted during its life when it is younger than the container, and
    the end lies between the engine's own stopping and starting.
    """
    began_at = context.engine_started_at
    since = began_at - ENGINE_START_S
    if context.engine_gone_at:
        since = min(since, context.engine_gone_at - ENGINE_STOP_S)
    return (
        container.started_at < began_at
        and since <= container.finished_at <= began_at + ENGINE_START_S
    )


def explain(code: int) -> str:
    """Say what an exit code means; empty for success."""
    match code:
        case 0:
            return ""
        case 126:
            return "The command could not be executed (126)."
        case 127:
            return "The command was not found in the image (127)."
        case _ if code > 128 and code - 128 in _SIGNALS:
            return f"The command was ended by {_SIGNALS[code - 128]} ({code})."
        case _:
            return f"The command exited with {code}."


_SIGNALS: Final = {member.value: member.name for member in signal.Signals}
