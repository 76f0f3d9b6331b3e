"""One seed, from its first session until nothing moves, and what came of it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from phalanx_manager.store.port import Unavailable
from tests.sim.process import Crash
from tests.sim.trace import Trace, recording
from tests.sim.virtual_loop import Stuck, run
from tests.sim.world import World


@dataclass(frozen=True)
class Outcome:
    """What came of a seed.

    Attributes:
        crashes: the points at which processes died, as `role point`.
        counts: what happened how often, for the summary.
    """

    seed: int
    violations: tuple[str, ...]
    trace: tuple[str, ...]
    digest: str
    crashes: tuple[str, ...]
    counts: dict[str, int]
    virtual_s: float


def _noting(trace: Trace) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Callbacks of the dead fail; one of the living that fails is a bug."""

    def note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, Crash):
            text = "".join(traceback.format_exception(error)[-6:])
            trace.bugs.append(f"{context['message']}: {text}")

    return note


async def _story(seed: int, trace: Trace) -> Outcome:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_noting(trace))
    async with asyncio.TaskGroup() as tasks:
        world = World(seed, trace, tasks)
        await world.live()
        world.end()
    violations = [*world.auditor.violations, *trace.bugs]
    counts = {
        "sessions": len(world.people.wishes),
        "crashes": len(world.crashes),
        "kernels started": len(world.auditor.seen.starts),
        "commands run": len(world.auditor.seen.released),
        "signals heard": world.auditor.promised.heard.total(),
        **world.auditor.promised.counts,
        "manager lives": world.managers,
        "agent lives": sum(host.lives for host in world.hosts.values()),
    }
    return Outcome(
        seed,
        tuple(violations),
        tuple(trace.lines),
        trace.digest(),
        tuple(world.crashes),
        counts,
        loop.time(),
    )


def simulate(seed: int) -> Outcome:
    """Live through one seed."""
    trace = Trace()
    trace.expected = (Unavailable,)
    with recording(trace):
        try:
            return run(_story(seed, trace))
        except Stuck as error:
            return Outcome(seed, (str(error),), tuple(trace.lines), trace.digest(), (), {}, 0.0)


def summarize(seed: int) -> Outcome:
    """Live through one seed; the trace of a good one stays behind, for it is long."""
    outcome = simulate(seed)
    return outcome if outcome.violations else replace(outcome, trace=())
