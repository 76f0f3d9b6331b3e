"""The agent's planner can be stopped after every step: it goes on from what it finds, and nothing
is started twice.

All situations that a kernel can get into are walked through: every operation done, done and not
noted, or half done; every death of the agent and of its host in between; every order of goals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from phalanx_agent.core.seen import Absent, Container, Created, Ended, Runner, Running, Seen
from phalanx_agent.core.step import Needs, Op, next_op
from phalanx_wire.lifecycle import KernelState as S

NEEDS: Final = Needs(upload=True, peers=True, outside=True)
UPWARDS: Final = (S.CREATED, S.READY, S.MESHED, S.RUNNING)
CID: Final = "c"
STEPS_TO_A_GOAL: Final = 40


@dataclass(frozen=True)
class Truth:
    """What is, whoever looks: the engine's, the host's and the runner's part.

    Attributes:
        told: what the runner was told to do and has not done yet.
        starts: of the container's first process.
    """

    container: Container = field(default_factory=Absent)
    marked: bool = False
    material: bool = False
    kept: bool = False
    runner: Runner = field(default_factory=Runner)
    told: frozenset[str] = frozenset()
    starts: int = 0


@dataclass(frozen=True)
class Situation:
    """The truth, what the agent's process knows of it, and what it is to bring about."""

    truth: Truth
    seen: Seen
    goal: S


def found(truth: Truth) -> Seen:
    """What a new process of the agent finds; runners connect later."""
    return Seen(
        container=truth.container,
        marked=truth.marked,
        material=truth.material,
        network=True,
        kept=truth.kept,
    )


def heard(at: Situation) -> Situation:
    """A runner repeats all that it has said, to whoever listens."""
    if not isinstance(at.truth.container, Running) or not at.truth.material:
        return replace(at, seen=replace(at.seen, connected=False))
    return replace(at, seen=replace(at.seen, connected=True, runner=at.truth.runner))


def done(op: Op, at: Situation) -> Situation:
    """Do an operation: what comes of it, and what is noted of it."""
    truth, seen, asked = at.truth, at.seen, at.seen.asked
    match op:
        case Op.GET_IMAGE:
            seen = replace(seen, image=True)
        case Op.MAKE_MATERIAL:
            truth, seen = replace(truth, material=True), replace(seen, material=True)
        case Op.CREATE:
            truth, seen = made(truth), replace(seen, container=Created(CID))
        case Op.FILL:
            seen = replace(seen, filled=True)
        case Op.TRUST:
            seen = replace(seen, trusted=True)
        case Op.MARK:
            truth, seen = replace(truth, marked=True), replace(seen, marked=True)
        case Op.START:
            assert truth.marked, "a start is noted on the disk before it is begun"
            truth, seen = started(truth), replace(seen, container=Running(CID))
        case Op.CONNECT:
            seen = replace(seen, outside=True)
        case Op.MESH | Op.RELEASE | Op.DISMISS | Op.STOP:
            truth = replace(truth, told=truth.told | {op.value})
            names = {"mesh": "mesh", "release": "release", "dismiss": "dismiss", "stop": "stop"}
            seen = replace(seen, asked=replace(asked, **{names[op.value]: True}))
        case Op.NOTIFY | Op.PING:
            raise AssertionError("no signal was asked for")
        case Op.KILL:
            truth, seen = ended(truth), replace(seen, container=Ended(CID, 137))
        case Op.KEEP_LOGS:
            truth, seen = replace(truth, kept=True), replace(seen, kept=True)
        case Op.REMOVE_CONTAINER:
            ran = isinstance(truth.container, Ended)
            assert not ran or (truth.kept and at.goal is S.REMOVED), "its outcome is stored before"
            truth, seen = replace(truth, container=Absent()), replace(seen, container=Absent())
        case Op.CLEAR:
            truth = replace(truth, material=False, marked=False)
            seen = replace(seen, material=False, marked=False)
    return Situation(truth, seen, at.goal)


def made(truth: Truth) -> Truth:
    return replace(truth, container=Created(CID))


def started(truth: Truth) -> Truth:
    if isinstance(truth.container, Running):
        return truth
    return replace(truth, container=Running(CID), starts=truth.starts + 1)


def ended(truth: Truth) -> Truth:
    return replace(truth, container=Ended(CID, 137), told=frozenset())


def moves(truth: Truth) -> Iterator[Truth]:
    """What a container does by itself, or as it was told."""
    runner, told = truth.runner, truth.told
    if not isinstance(truth.container, Running):
        return
    if not runner.ready:
        yield replace(truth, runner=replace(runner, heard=True, ready=True))
    if "mesh" in told and not runner.meshed:
        yield replace(truth, runner=replace(runner, meshed=True))
    if "release" in told and not runner.released:
        yield replace(truth, runner=replace(runner, released=True))
    if told & {"stop", "dismiss"}:
        yield ended(truth)


def mishaps(at: Situation) -> Iterator[Truth]:
    """How the truth may be when the agent's process dies now, during its next operation too."""
    yield at.truth
    op = next_op(at.goal, at.seen, NEEDS)
    if op is not None:
        yield done(op, at).truth
    if op is Op.CLEAR:
        yield replace(at.truth, material=False)
    host_restarts = replace(at.truth, material=False, told=frozenset())
    yield ended(host_restarts) if isinstance(at.truth.container, Running) else host_restarts


def goals(at: Situation) -> Iterator[S]:
    """What the manager may want next; REMOVED only of what runs no more."""
    if at.goal in UPWARDS[:-1]:
        yield UPWARDS[UPWARDS.index(at.goal) + 1]
    if at.goal < S.STOPPING:
        yield S.STOPPED
    over = isinstance(at.truth.container, Absent | Ended)
    if over and (at.goal is S.STOPPED or at.truth.starts):
        yield S.REMOVED


def following(at: Situation) -> Iterator[Situation]:
    """All situations that may come next."""
    op = next_op(at.goal, at.seen, NEEDS)
    if op is not None:
        yield heard(done(op, at))
    for truth in moves(at.truth):
        yield heard(noticed(replace(at, truth=truth)))
    if at.truth.runner.released and at.truth.runner.exited is None:
        runner = replace(at.truth.runner, exited=0)
        yield heard(replace(at, truth=replace(at.truth, runner=runner)))
    for truth in mishaps(at):
        yield Situation(truth, found(truth), at.goal)
        yield heard(Situation(truth, found(truth), at.goal))
    for goal in goals(at):
        yield replace(at, goal=goal)


def noticed(at: Situation) -> Situation:
    """The engine tells of an end."""
    return replace(at, seen=replace(at.seen, container=at.truth.container))


def reached(at: Situation) -> bool:
    """Whether the kernel is where it is to be, or has ended on its way up."""
    truth = at.truth
    match at.goal:
        case S.REMOVED:
            return isinstance(truth.container, Absent) and not (truth.material or truth.marked)
        case S.STOPPED:
            return isinstance(truth.container, Absent | Ended)
        case _ if isinstance(truth.container, Ended) or (truth.starts and not at.seen.marked):
            return True
        case _ if isinstance(truth.container, Absent):
            return truth.marked  # begun and gone: told as an end
        case S.CREATED:
            return True
        case S.READY:
            return truth.runner.ready
        case S.MESHED:
            return truth.runner.meshed
        case _:
            return truth.runner.released


def goes_on(at: Situation) -> bool:
    """Let the agent and the container do what they can, undisturbed."""
    for _ in range(STEPS_TO_A_GOAL):
        op = next_op(at.goal, at.seen, NEEDS)
        truth = next(moves(at.truth), None)
        if op is not None:
            at = heard(done(op, at))
        elif truth is not None:
            at = heard(noticed(replace(at, truth=truth)))
        elif at.seen.asked.stop and not at.seen.asked.overdue:
            asked = replace(at.seen.asked, overdue=True)
            at = replace(at, seen=replace(at.seen, asked=asked))
        else:
            return reached(at)
    return False


def everything() -> set[Situation]:
    """All situations that can come about."""
    first = Situation(Truth(), found(Truth()), S.CREATED)
    known, todo = {first}, [first]
    while todo:
        for then in following(todo.pop()):
            if then not in known:
                known.add(then)
                todo.append(then)
    return known


def test_from_every_situation_the_goal_is_reached_and_nothing_is_started_twice() -> None:
    known = everything()
    stuck = [at for at in known if not goes_on(at)]
    print(f"{len(known)} situations")

    assert [] == [at for at in known if at.truth.starts > 1]
    assert [] == stuck[:3]


def test_a_process_that_does_not_find_the_marker_would_start_twice() -> None:
    at = Situation(Truth(marked=True, material=True, starts=1), Seen(network=True), S.RUNNING)
    while (op := next_op(at.goal, at.seen, NEEDS)) is not None:
        at = heard(done(op, at))

    assert 2 == at.truth.starts
