"""Why a session that runs does not get on, from what was seen of its containers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from phalanx_manager.core import rendezvous
from phalanx_manager.core.explain import failure
from phalanx_manager.core.model import Kernel
from phalanx_manager.core.sight import (
    Scene,
    Sight,
    command,
    doing,
    is_loopback,
    named,
    place,
    quoted,
    shown,
)
from phalanx_wire.api import Finding
from phalanx_wire.ids import AgentId
from phalanx_wire.look import Process, Socket


def judge(scene: Scene) -> tuple[Finding, ...]:
    """Tell what is wrong, the likeliest first; when nothing is, what the ranks do."""
    found = list(
        chain(
            _cuts(scene),
            _ended(scene),
            _died_inside(scene),
            _stopped(scene),
            rendezvous.variables(scene),
        )
    )
    if not works(scene):
        found += chain(
            rendezvous.lacking(scene),
            rendezvous.sockets(scene),
            _not_started(scene),
            _outliers(scene),
        )
    found += _blocked(scene)
    certain = [one for one in found if one.certain]
    guesses = [one for one in found if not one.certain]
    known = [*certain, *guesses, *_unseen(scene)]
    return (*(known or _nothing_wrong(scene)), *_beyond(scene))


def works(scene: Scene) -> bool:
    """Tell whether all ranks that have something to do are at it: then nobody waits."""
    return all(one.busy for one in scene.sights if one.commanded or one.alive)


# ---------------------------------------------------------------- the network


def _cuts(scene: Scene) -> Iterator[Finding]:
    """Find hosts that do not reach each other."""
    silent: dict[tuple[AgentId, AgentId], tuple[Kernel, Kernel]] = {}
    answered: set[tuple[AgentId, AgentId]] = set()
    for sight in scene.sights:
        for reach in sight.look.reach:
            if not 0 <= reach.rank < len(scene.row.kernels):
                continue
            own, peer = sight.kernel, scene.row.kernels[reach.rank]
            if own.agent is None or peer.agent is None:
                continue
            if reach.answer in ("silent", "no route"):
                silent.setdefault((own.agent, peer.agent), (own, peer))
            elif reach.answer != "untried":
                answered.add((own.agent, peer.agent))
    told: set[frozenset[AgentId]] = set()
    for (one, other), (own, peer) in silent.items():
        if frozenset((one, other)) in told:
            continue
        told.add(frozenset((one, other)))
        back = (other, one) in answered
        yield _cut(own, peer, one_way=back, both=(other, one) in silent)


def _cut(own: Kernel, peer: Kernel, *, one_way: bool, both: bool) -> Finding:
    hosts = f"hosts {own.agent} and {peer.agent}"
    text = (
        f"the network between {hosts} is cut: {named([own])} on {own.agent} gets no answer of "
        f"{named([peer])} on {peer.agent}"
    )
    if both:
        text += ", nor the other way round"
    if one_way:
        text = (
            f"the network from host {own.agent} to {peer.agent} fails: {named([own])} gets no "
            f"answer of {named([peer])}, which reaches it the other way"
        )
    return Finding(
        "network-cut",
        text,
        (own.rank, peer.rank),
        f"look at the link and the firewalls between {hosts}: VXLAN is UDP port 4789, and its "
        "packets must fit (MTU)",
        certain=both,
    )


# ---------------------------------------------------------------- processes


def _ended(scene: Scene) -> Iterator[Finding]:
    """Find ranks that are over while others go on."""
    over = [kernel for kernel in scene.row.kernels if kernel.ended]
    if not over:
        return
    first = min(over, key=lambda kernel: (kernel.state_at, kernel.rank))
    more = f"; so have {len(over) - 1} more" if len(over) > 1 else ""
    yield Finding(
        "ended-early",
        f"{failure(first)} while others still run{more}",
        tuple(kernel.rank for kernel in over),
        "if the others wait for it they wait for ever; what it said last: "
        f"phalanx logs {scene.row.session.name} --rank {first.rank}",
    )


def _died_inside(scene: Scene) -> Iterator[Finding]:
    """Find processes that have ended and are not waited for, and ranks without any."""
    for sight in scene.sights:
        dead = [one for one in sight.theirs if one.state in ("Z", "X")]
        if dead:
            keeper = _parent(sight, dead[0])
            by = f"; {quoted(keeper)} goes on and has not taken note" if keeper is not None else ""
            yield Finding(
                "process-ended",
                f"in {named([sight.kernel])} {quoted(dead[0])} has ended{by}",
                (sight.kernel.rank,),
                "if it was the rank's program, let what started it end with it: `exec`, "
                "or `wait` and `set -e` in a script",
                certain=not sight.busy,
            )
        elif sight.commanded and not sight.alive:
            yield Finding(
                "command-gone",
                f"in {named([sight.kernel])} no process of the command is left",
                (sight.kernel.rank,),
                f"phalanx logs {scene.row.session.name} --rank {sight.kernel.rank}",
            )


def _parent(sight: Sight, child: Process) -> Process | None:
    return next((one for one in sight.alive if one.pid == child.parent), None)


def _stopped(scene: Scene) -> Iterator[Finding]:
    for sight in scene.sights:
        still = [one for one in sight.alive if one.state in ("T", "t")]
        if still:
            how = "is held by a debugger" if still[0].state == "t" else "is stopped (SIGSTOP)"
            name = scene.row.session.name
            yield Finding(
                "stopped",
                f"in {named([sight.kernel])} {quoted(still[0])} {how}",
                (sight.kernel.rank,),
                f"let it go on: phalanx exec {name}/{sight.kernel.rank} -- "
                f"kill -CONT {still[0].pid}",
            )


def _blocked(scene: Scene) -> Iterator[Finding]:
    for sight in scene.sights:
        stuck = [one for one in sight.alive if one.state == "D"]
        if stuck:
            where = f" in {shown(stuck[0].waits)}" if stuck[0].waits else ""
            yield Finding(
                "waits-for-device",
                f"in {named([sight.kernel])} {quoted(stuck[0])} waits for a disk, a file server "
                f"or a device{where}",
                (sight.kernel.rank,),
                "if it stays so, look at the mounts of its host and at its kernel's log (dmesg)",
                certain=False,
            )


def awaited(scene: Scene) -> tuple[Sight, Socket] | None:
    """Find a rank that listens where others can come, though nobody has."""
    if scene.linked:
        return None
    outward = (
        (sight, socket)
        for sight in scene.sights
        for socket in sight.listening
        if sight.alive and not is_loopback(socket.local)
    )
    return next(outward, None)


def _not_started(scene: Scene) -> Iterator[Finding]:
    """Find ranks that idle as they should, while a program of another waits for them."""
    idle = [one.kernel for one in scene.sights if not one.commanded and not one.alive]
    active = [one for one in scene.sights if one.alive]
    if not idle or not active or scene.linked:
        return
    row = scene.row.session
    whole = row.spec.run_on == "main" and row.spec.kind != "interactive"
    hint = "--run-on all starts it everywhere" if whole else "start it in every container"
    if row.spec.env_profile == "slurm":
        hint = "`srun COMMAND` in the script starts it on all nodes"
    text = f"in {named(idle)} nothing was started; in rank "
    waits = awaited(scene)
    if waits is None:
        text += f"{active[0].kernel.rank} {doing(active[0])}"
    else:
        at = place(waits[1].local, waits[1].local_port)
        text += f"{waits[0].kernel.rank} {doing(waits[0])}, and listens at {at} for others"
    yield Finding(
        "not-started",
        text,
        tuple(kernel.rank for kernel in idle),
        f"if the program is to run in all containers: {hint}, or by mpirun, torchrun over ssh; if "
        "it is to run in one: phalanx-solo CMD",
        certain=False,
    )


def _outliers(scene: Scene) -> Iterator[Finding]:
    """Find ranks that lack the program that all others of the same command run."""
    groups: dict[tuple[str, ...], list[Sight]] = {}
    for sight in scene.sights:
        if sight.commanded and sight.alive:
            groups.setdefault(command(scene.row, sight.kernel), []).append(sight)
    for group in groups.values():
        common = _most_common(group)
        lacking = [one for one in group if common and common not in one.programs]
        if lacking:
            first = lacking[0]
            yield Finding(
                "no-program",
                f"{named([one.kernel for one in lacking])} does not run `{shown(common)}` as the "
                f"others do: it has ended there, or is yet to start; {doing(first)}",
                tuple(one.kernel.rank for one in lacking),
                f"phalanx logs {scene.row.session.name} --rank {first.kernel.rank}",
                certain=False,
            )


def _most_common(group: list[Sight]) -> str:
    """Name the program that most ranks run, but not all; empty when there is none."""
    counts = Counter(name for sight in group for name in sight.programs)
    some = {name: count for name, count in counts.items() if count < len(group)}
    # Of two ranks each with a program of its own neither is the rule; one with none at all lacks.
    name = max(some, key=lambda name: (some[name], name), default="")
    lacking = [one for one in group if name not in one.programs]
    # Or those run nothing that the others don't but to pass the time.
    odd = some.keys() - {"sleep"}
    clear = 2 * len(lacking) < len(group) or not any(one.programs & odd for one in lacking)
    return name if name and clear else ""


# ---------------------------------------------------------------- nothing wrong


def _unseen(scene: Scene) -> Iterator[Finding]:
    by_reason: dict[str, list[Kernel]] = {}
    for rank, why in scene.missing.items():
        by_reason.setdefault(why, []).append(scene.row.kernels[rank])
    for why, kernels in by_reason.items():
        hosts = ", ".join(dict.fromkeys(str(kernel.agent) for kernel in kernels))
        yield Finding(
            "not-seen",
            f"{named(kernels)} could not be looked at: {why}",
            tuple(kernel.rank for kernel in kernels),
            f"the containers go on without their agent; see phalanx nodes, and the "
            f"phalanx-agent on {hosts}",
        )


def _beyond(scene: Scene) -> Iterator[Finding]:
    """Say that all this is of a part, when there were more ranks than are looked at."""
    if scene.unseen:
        looked = len(scene.sights) + len(scene.missing)
        yield Finding(
            "not-all-seen",
            f"{scene.unseen} of {looked + scene.unseen} ranks were not looked at: of one session "
            f"{looked} are, first those that rank 0 is not connected with, then some on each host; "
            "what is told above is of those",
            hint=f"see what another rank does: phalanx exec {scene.row.session.name}/RANK -- ps",
        )


def _nothing_wrong(scene: Scene) -> Iterator[Finding]:
    active = [one for one in scene.sights if one.commanded or one.alive]
    if not active:
        yield Finding("idle", "nothing looks wrong: all containers run and nothing was started")
        return
    busy = [one for one in active if one.busy]
    used = sum(one.cpu_s for sight in active for one in sight.alive)
    if len(busy) == len(active):
        count = f"all {len(active)} ranks are busy" if len(active) > 1 else "it is busy"
        cores = sum(one.cores for one in active)
        text = f"{count}: {cores:.1f} cores now, {used:.0f} s of CPU so far"
        yield Finding("busy", f"nothing looks wrong: {text}")
        return
    waiting = [one for one in active if not one.busy]
    if busy:
        text = (
            f"{named([one.kernel for one in busy])} computes and "
            f"{named([one.kernel for one in waiting])} waits; in rank {busy[0].kernel.rank} "
            f"{doing(busy[0])}"
        )
        yield Finding("straggler", text, _ranks(busy))
        return
    text = f"all are there and none computes; in rank {waiting[0].kernel.rank} {doing(waiting[0])}"
    hint = "they may wait for data or for each other; ask again: is it the same for long?"
    yield Finding("idle", f"nothing looks wrong: {text}", _ranks(waiting), hint)


def _ranks(sights: list[Sight]) -> tuple[int, ...]:
    return tuple(one.kernel.rank for one in sights)
