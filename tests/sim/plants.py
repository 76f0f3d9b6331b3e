"""Bugs on purpose: each takes the place of a piece of production code; a checker must see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import msgspec

from phalanx_agent.core import step
from phalanx_agent.core.fence import Fence
from phalanx_agent.core.seen import Absent, Container, Ended, Seen
from phalanx_agent.docker.port import ContainerFacts
from phalanx_agent.loops import case, deeds, keeper, noting
from phalanx_agent.loops.case import Case
from phalanx_agent.loops.found import container_of
from phalanx_agent.loops.leave import Leaving
from phalanx_agent.loops.workshop import Workshop
from phalanx_manager.core import after, clusters, goals, govern, observe, place, sealing
from phalanx_manager.core.model import Drain, Kernel, NetworkRow, Session, SessionRow, Snapshot
from phalanx_manager.core.observe import KernelChange
from phalanx_manager.loops.converge import Converge
from phalanx_manager.loops.lead import Hold
from phalanx_manager.store.access import Access
from phalanx_manager.store.ledger import Ledger
from phalanx_manager.store.port import NewSession, Unavailable
from phalanx_manager.store.tables import Change
from phalanx_manager.store.work import Work
from phalanx_wire.control import Network, Observed
from phalanx_wire.ids import AgentId, ClusterName, SessionId
from phalanx_wire.lifecycle import KernelState
from tests.sim.daemons import SkewedClock
from tests.sim.engine import SimEngine
from tests.sim.leads import FencedDatabase
from tests.sim.plant import Plant
from tests.support.fake_engine import FakeEngine

_submit = Ledger.submit
_rooms = place.rooms
_move = Work.move
_end = Change.end
_unknown = Leaving.unknown
_notify = noting.notify
_holds: Callable[[Kernel], bool] = Kernel.holds.fget  # type: ignore[attr-defined]


def _makes_again(seen: Seen) -> step.Op | None:
    return _make(replace(seen, marked=False))


_make: Callable[[Seen], step.Op | None] = vars(step)["_make"]


def _begins_alone(goal: KernelState, seen: Seen, needs: step.Needs) -> step.Op | None:
    return _begin(KernelState.RUNNING, seen, replace(needs, peers=True))


_begin: Callable[[KernelState, Seen, step.Needs], step.Op | None] = vars(step)["_begin"]


def _removes_at_once(goal: KernelState, seen: Seen, needs: step.Needs) -> step.Op | None:
    if isinstance(seen.container, Ended):
        return step.Op.REMOVE_CONTAINER
    return step.next_op(goal, seen, needs)


def _overlooks_ends(facts: ContainerFacts | None) -> Container:
    found = container_of(facts)
    return Absent() if isinstance(found, Ended) else found


def _runs_at_once(row: SessionRow) -> KernelState:
    return KernelState.RUNNING


def _always_wanted(kernels: Sequence[Kernel]) -> bool:
    return True


async def _without_key(ledger: Ledger, request: NewSession) -> object:
    return await _submit(ledger, replace(request, idempotency_key=None))


def _frees_early(
    snapshot: Snapshot, cluster: ClusterName, members: Collection[AgentId], now: datetime
) -> tuple[place.Room, ...]:
    rows = {name: replace(row, kernels=_rest(row)) for name, row in snapshot.sessions.items()}
    return _rooms(replace(snapshot, sessions=rows), cluster, members, now)


def _rest(row: SessionRow) -> tuple[Kernel, ...]:
    return tuple(one for one in row.kernels if one.state is not KernelState.STOPPING)


def _for_ever(answered_s: float, lost_after_s: float, grace_s: float) -> Fence:
    return Fence(1e9, 1e9)


async def _drains_nothing(
    ledger: Ledger, agent: AgentId, drain: Drain | None, text: str, at: datetime
) -> bool:
    return True


def _follows_at_once(wishes: object, others: object) -> None:
    return None


async def _holds_nothing(
    ledger: Ledger, session: SessionId, text: str, at: datetime, *, held: bool
) -> bool:
    return True


def _never_extended(session: Session) -> float | None:
    return session.spec.time_limit_s


def _keeps_ports(work: Work, change: KernelChange, at: datetime) -> bool:
    moved = _move(work, change, at)
    work.writes.all[:] = [write for write in work.writes.all if write.name != "port_release"]
    return moved


def _sends_once(converge: Converge, agent: AgentId, report: Observed) -> None:
    converge._answered.add(agent)


def _only_when_told(leaving: Leaving, why: str, *, told: bool) -> None:
    if told:
        _unknown(leaving, why, told=told)


async def _stays(engine: FakeEngine, entered_at: float) -> None:
    pass


def _sees_every_device(row: SessionRow, kernel: Kernel) -> tuple[str, ...]:
    return tuple(f"{kernel.agent}-gpu{number}" for number in range(4))


def _in_one_subnet(row: NetworkRow) -> Network:
    return msgspec.structs.replace(_network(row), subnet="10.213.0.0/24")


_network: Callable[[NetworkRow], Network] = vars(goals)["_network"]


def _holds_while_heard(kernel: Kernel) -> bool:
    return _holds(kernel) and kernel.state is not KernelState.LOST


async def _removes_nothing(engine: SimEngine, container_id: str) -> None:
    pass


def _notifies_twice(case: Case, workshop: Workshop, send: Callable[[bytes], bool]) -> None:
    _notify(case, workshop, lambda command: send(command) and send(command))


def _ends_well(change: Change, error: Exception | None = None) -> None:
    _end(change, None if isinstance(error, Unavailable) else error)


def _by_the_wall(clock: SkewedClock) -> float:
    return asyncio.get_running_loop().time() + clock.skew_s


PLANTS: Final = (
    Plant(
        "a container that was started once is made again",
        ((step, "_make"),),
        _makes_again,
        "was started more than once",
    ),
    Plant(
        "a container is removed before its outcome is stored",
        ((keeper, "next_op"),),
        _removes_at_once,
        "is removed before its outcome is stored",
    ),
    Plant(
        "ends that happened while the agent was away are overlooked",
        ((keeper, "container_of"), (case, "container_of")),
        _overlooks_ends,
        "; stored is KernelLine",
    ),
    Plant(
        "the barriers are ignored", ((goals, "barrier"),), _runs_at_once, "have reached their peers"
    ),
    Plant(
        "networks are never removed",
        ((goals, "network_wanted"), (observe, "network_wanted")),
        _always_wanted,
        "still holds something",
    ),
    Plant(
        "a repeated submit is another session",
        ((Ledger, "submit"),),
        _without_key,
        "key key-",
    ),
    Plant(
        "what is being stopped counts as gone",
        ((place, "rooms"),),
        _frees_early,
        " is oversold: ",
    ),
    Plant(
        "kernels outlive their lease",
        ((deeds, "fence"), (keeper, "fence")),
        _for_ever,
        "is given up, and runs on",
    ),
    Plant(
        "a drained host gets new work",
        ((Access, "drain"),),
        _drains_nothing,
        ", which is drained",
    ),
    Plant(
        "a follower does not wait for the end of others",
        ((after, "verdict"),),
        _follows_at_once,
        " gets a place after",
    ),
    Plant(
        "a hold is only said",
        ((Ledger, "hold"),),
        _holds_nothing,
        " gets a place, and is held",
    ),
    Plant(
        "what was added to a time limit does not count",
        ((Session, "time_limit_s"),),
        property(_never_extended),
        " s of its ",
    ),
    Plant(
        "ports of hosts are never given back",
        ((Work, "move"),),
        _keeps_ports,
        "port_hold still has",
    ),
    Plant(
        "what is said without the lead is written",
        ((FencedDatabase, "fence"),),
        lambda _database: None,
        "a commit of lead ",
    ),
    Plant(
        "beats are answered without the lead",
        ((Hold, "sure"),),
        lambda _hold: True,
        "is given up, and runs on",
    ),
    Plant(
        "goals that were lost on their way are not sent again",
        ((Converge, "_judge_answer"),),
        _sends_once,
        " never ended",
    ),
    Plant(
        "what a full disk refuses counts as written",
        ((Change, "end"),),
        _ends_well,
        " was accepted and is forgotten",
    ),
    Plant(
        "a slow image is not waited for",
        ((govern, "DEADLINE_S"),),
        {**govern.DEADLINE_S, KernelState.PREPARING: 10.0},
        " s to get its image",
    ),
    Plant(
        "agents of a removed cluster leave before its sessions have ended",
        ((clusters, "holds"),),
        lambda _snapshot, _agent: False,
        " is given up after ",
    ),
    Plant(
        "a sealed upload goes to whoever has room",
        ((sealing, "opens"),),
        lambda _agent, _sealed_for: True,
        ", which cannot open its upload",
    ),
    Plant(
        "whose key is refused has not been forgotten",
        ((Leaving, "unknown"),),
        _only_when_told,
        ", and its agent knocks still",
    ),
    Plant(
        "an engine that its agent took into a swarm stays there",
        ((FakeEngine, "swarm_leave"),),
        _stays,
        ", and its engine is in a swarm",
    ),
    Plant(
        "all engines leave their swarm at once",
        ((clusters, "_last_of_swarm"),),
        lambda _snapshot, _cluster, _removal: None,
        ", and nobody stays to hear of it",
    ),
    Plant(
        "silence is measured by a clock that people set",
        ((SkewedClock, "monotonic_s"),),
        _by_the_wall,
        " s of silence",
    ),
    Plant(
        "a container does not wait for those of its gang",
        ((step, "_begin"),),
        _begins_alone,
        " of its gang are created",
    ),
    Plant(
        "a container sees all devices of its host",
        ((goals, "visible_gpus"),),
        _sees_every_device,
        " is used by ",
    ),
    Plant(
        "all sessions have one subnet",
        ((goals, "_network"),),
        _in_one_subnet,
        " overlap",
    ),
    Plant(
        "an engine keeps what it was told to remove",
        ((SimEngine, "remove"),),
        _removes_nothing,
        " is REMOVED, and there is ",
    ),
    Plant(
        "what was given up keeps its container",
        ((Kernel, "holds"),),
        property(_holds_while_heard),
        " still has containers ",
    ),
    Plant(
        "what was given up keeps its files",
        ((Kernel, "holds"),),
        property(_holds_while_heard),
        " still has files of ",
    ),
    Plant(
        "a signal is sent twice",
        ((noting, "notify"),),
        _notifies_twice,
        " hears signal ",
    ),
)
