"""Why a session is as it is: pending, starting, running and stuck, or ended; the reason, in order
of likelihood, with what to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

from phalanx_manager.core import folders, hang
from phalanx_manager.core.explain import agent_state, failure, laggards, session_reason
from phalanx_manager.core.model import AgentRecord, Kernel, SessionRow
from phalanx_manager.core.sight import Scene, Sight, commanded
from phalanx_wire.api import ENDED_STATES, Finding
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.look import MAX_REACH, Look

MAX_LOOKS: Final = 1024
"""Containers of one session that are looked at: to read and judge so many answers takes the manager
a third of a second. Of a larger session rank 0 is looked at first, then those that it has not met,
and of the others some on each host.
"""

_STUCK: Final = frozenset(
    {
        "command-gone",
        "duplicate-rank",
        "ended-early",
        "master-not-listening",
        "master-on-loopback",
        "master-other-port",
        "network-cut",
        "no-answer",
        "no-program",
        "not-connected",
        "process-ended",
        "stopped",
        "world-size",
        "wrong-address",
        "wrong-master",
    }
)


def is_large(row: SessionRow) -> bool:
    """Tell whether more of a session runs than is looked at."""
    return sum(kernel.state is KernelState.RUNNING for kernel in row.kernels) > MAX_LOOKS


def plan(row: SessionRow, met: Collection[int] = ()) -> Mapping[int, tuple[int, ...]]:
    """Tell which ranks to look at, and whose ways each of them tries: from each host one rank
    tries one of every other host, the next ones where there are many.

    Args:
        met: ranks that are known to be connected with rank 0; others are chosen before them.
    """
    running = _looked_at(row, frozenset(met))
    first: dict[AgentId, int] = {}
    for kernel in running:
        if kernel.agent is not None:
            first.setdefault(kernel.agent, kernel.rank)
    ring = list(first.values())
    ways = {rank: tuple((*ring[at + 1 :], *ring[:at])[:MAX_REACH]) for at, rank in enumerate(ring)}
    return {kernel.rank: ways.get(kernel.rank, ()) for kernel in running}


def _looked_at(row: SessionRow, met: frozenset[int]) -> Sequence[Kernel]:
    """Choose the ranks to look at: rank 0, who has not met it, and so that no host is left out
    before all have one.
    """
    turns: Counter[AgentId | None] = Counter()
    running: list[tuple[bool, bool, int, int]] = []
    for kernel in row.kernels:
        if kernel.state is KernelState.RUNNING:
            rank = kernel.rank
            running.append((rank != 0, rank in met, turns[kernel.agent], rank))
            turns[kernel.agent] += 1
    return [row.kernels[rank] for rank in sorted(one[-1] for one in sorted(running)[:MAX_LOOKS])]


def scene(row: SessionRow, looks: Mapping[int, Look], missing: Mapping[int, str]) -> Scene:
    """Put together what was seen."""
    sights = tuple(
        Sight(row.kernels[rank], look, commanded(row, row.kernels[rank]))
        for rank, look in sorted(looks.items())
    )
    running = sum(kernel.state is KernelState.RUNNING for kernel in row.kernels)
    return Scene(row, sights, dict(sorted(missing.items())), max(0, running - MAX_LOOKS))


def findings(
    seen: Scene, agents: Mapping[AgentId, AgentRecord], now: datetime
) -> tuple[Finding, ...]:
    """Tell why, the likeliest first; there is always something to tell."""
    return (*_state(seen, agents, now), *_unshared(seen.row))


def _state(
    seen: Scene, agents: Mapping[AgentId, AgentRecord], now: datetime
) -> tuple[Finding, ...]:
    row = seen.row
    session = row.session
    if session.state in ENDED_STATES:
        return _ended(row)
    if session.state == "pending":
        text = session_reason(row) or "it waits for a place; it has not been tried yet"
        hint = "what is free: phalanx nodes; what it asks for: phalanx show " + session.name
        return (Finding("pending", text, hint="" if session.held else hint),)
    away = _away(row, agents, now)
    if session.state == "running":
        return (*hang.judge(seen), *away)
    if session.state == "stopping":
        return (*away, Finding("stopping", session_reason(row) or "it stops"))
    return (*away, *_starting(row))


def stuck(seen: Scene) -> Finding | None:
    """Tell what keeps a session from getting on whose ranks have not found each other; None when
    they have, or when they work.
    """
    if seen.row.session.state != "running" or seen.linked or hang.works(seen):
        return None
    telling = _STUCK | {"not-started"} if hang.awaited(seen) else _STUCK
    return next((one for one in hang.judge(seen) if one.code in telling), None)


def _starting(row: SessionRow) -> tuple[Finding, ...]:
    """Say who is late, at what."""
    state = row.session.state
    least = min(kernel.state for kernel in row.kernels)
    slow = tuple(kernel.rank for kernel in row.kernels if kernel.state is least)
    text = session_reason(row) or laggards(row)
    hint = f"what happened so far: phalanx events {row.session.name}"
    network = row.session.network
    if network is not None and network.problem:
        hint = f"see phalanx nodes, and the phalanx-agent and the engine on {network.owner}"
    return (Finding(state, text, slow, hint),)


def _away(
    row: SessionRow, agents: Mapping[AgentId, AgentRecord], now: datetime
) -> tuple[Finding, ...]:
    """Name the hosts of a session that are not heard."""
    found: list[Finding] = []
    ranks: dict[AgentId, list[int]] = {}
    for kernel in row.kernels:
        if kernel.agent is not None and not kernel.ended:
            ranks.setdefault(kernel.agent, []).append(kernel.rank)
    for name, theirs in ranks.items():
        if name not in agents:
            continue
        state, why = agent_state(agents[name], now)
        if state in ("suspect", "unreachable", "lost", "degraded"):
            text = f"agent {name} is {state}: {why}"
            hint = f"look at the host {name}: is it up, does its phalanx-agent run?"
            found.append(Finding("agent-away", text, tuple(theirs), hint))
    return tuple(found)


def _unshared(row: SessionRow) -> tuple[Finding, ...]:
    """Say which folders its hosts do not share, though it goes on from what it saves there."""
    if row.session.state == "succeeded":
        return ()
    hint = "what it mounts: phalanx show " + row.session.name
    return tuple(Finding("folder-unshared", text, hint=hint) for text in folders.unshared(row))


# ---------------------------------------------------------------- ended


def _ended(row: SessionRow) -> tuple[Finding, ...]:
    session = row.session
    if session.state == "succeeded":
        return (Finding("succeeded", "it has succeeded: every command exited with code 0"),)
    if session.state != "failed":
        reason = session_reason(row) or f"its state is {session.state}"
        hint = "ask for more: --time, or phalanx extend" if session.state == "timeout" else ""
        return (Finding(session.state, reason, hint=hint),)
    first = next((one for one in row.kernels if one.rank == session.failed_rank), None)
    if first is None:
        return (Finding("failed", session_reason(row) or "it has failed", hint=_hint(row, None)),)
    text = failure(first)
    if len(row.kernels) > 1:
        text = f"{text.removesuffix('.')}, before any other rank"
    code = "hosts-apart" if first.cause == "hosts-apart" else "failed"
    found = [Finding(code, text, (first.rank,), _hint(row, first))]
    if session.reason and session.reason.removesuffix(".") not in text:
        found.append(Finding("failed", session.reason))
    others = [
        one
        for one in row.kernels
        if one is not first and one.ended_as is KernelState.EXITED and one.exit_code
    ]
    if others:
        more = f", and {len(others) - 1} more failed" if len(others) > 1 else ""
        said = f"then {failure(others[0])}{more}: likely because of the first"
        ranks = tuple(one.rank for one in others)
        found.append(Finding("failed-later", said, ranks, certain=False))
    return tuple(found)


def _hint(row: SessionRow, kernel: Kernel | None) -> str:
    """Say what to do about a failure."""
    name = row.session.name
    if kernel is None:
        return f"what happened: phalanx events {name}"
    logs = f"what it said: phalanx logs {name} --rank {kernel.rank}"
    by_cause = {
        "oom": "ask for more memory (-m)",
        "lost": f"look at the host {kernel.agent}; --requeue tries again elsewhere by itself",
        "engine-restart": f"the engine of {kernel.agent} restarted; --requeue tries again",
        "mesh-failed": "look at the network between the hosts: VXLAN is UDP port 4789",
    }
    by_code = {
        126: "the command cannot be executed: is it a program, and executable?",
        127: "the command is not in the image: see its PATH",
        137: "something killed it (SIGKILL)",
        139: "it crashed (SIGSEGV)",
    }
    first = by_cause.get(kernel.cause, "") or by_code.get(kernel.exit_code or 0, "")
    if kernel.cause == "hosts-apart":
        return "who is where: phalanx nodes; a cluster for hosts that do: phalanx cluster create"
    if kernel.ended_as is KernelState.REJECTED:
        return (
            f"what happened: phalanx events {name}, and the phalanx-agent's log on {kernel.agent}"
        )
    return f"{first}; {logs}" if first else logs
