"""Why ranks that run have not found each other: judged by their sockets and their variables.

A program that uses MASTER_PORT opens it in rank 0, and the others connect there; afterwards the
ranks connect among themselves, through other ports. Where the second has happened, the first is
over. A connection that is refused leaves no trace, so it shows as a rank that has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from phalanx_manager.core.sight import (
    Scene,
    Sight,
    claims,
    doing,
    is_loopback,
    named,
    place,
    quoted,
    shown,
)
from phalanx_wire.api import Finding
from phalanx_wire.look import Socket

_MAX_WORLD: Final = 4096
_USES: Final = "if the program does not use MASTER_PORT, this means nothing"


def variables(scene: Scene) -> Iterator[Finding]:
    """Compare what the workers were started with."""
    yield from _other_target(scene)
    yield from _world(scene)


def _other_target(scene: Scene) -> Iterator[Finding]:
    """Find workers that look for rank 0 elsewhere than the session has it."""
    for name in ("MASTER_PORT", "MASTER_ADDR"):
        given = scene.variables.get(name)
        others = [found for found in claims(scene.sights, name) if found[2] != given]
        if (
            given is None
            or not others
            or len({value for *_, value in claims(scene.sights, name)}) < 2
        ):
            continue
        kernels = list({one.kernel.rank: one.kernel for one, *_ in others}.values())
        sight, process, value = others[0]
        yield Finding(
            "wrong-master",
            f"{named(kernels)} looks for rank 0 elsewhere than the others: {quoted(process)} "
            f"was started with {name}={shown(value)}, the session's is {given}",
            tuple(kernel.rank for kernel in kernels),
            f"leave {name} as the session sets it: phalanx env {scene.row.session.name}"
            f"/{sight.kernel.rank}",
        )


def _world(scene: Scene) -> Iterator[Finding]:
    """Find workers that expect another number of ranks than there are."""
    worlds: dict[str, list[int]] = {}
    for sight, _, value in claims(scene.sights, "WORLD_SIZE"):
        worlds.setdefault(value, []).append(sight.kernel.rank)
    if len(worlds) > 1:
        said = "; ".join(
            f"WORLD_SIZE={shown(value)} in rank {ranks[0]}"
            + (f" and {len(set(ranks)) - 1} more" if len(set(ranks)) > 1 else "")
            for value, ranks in sorted(worlds.items())
        )
        text = f"the ranks wait for different numbers of ranks: {said}"
        yield Finding("world-size", text, hint=_same_world(scene))
        return
    taken = Counter(value for *_, value in claims(scene.sights, "RANK"))
    twice = sorted(value for value, count in taken.items() if count > 1)
    if twice and worlds:
        yield Finding(
            "duplicate-rank",
            f"more than one worker was started as rank {shown(twice[0])}",
            hint="torchrun needs --node-rank=$NODE_RANK, or the profile: --env-profile torchrun",
        )


def lacking(scene: Scene) -> Iterator[Finding]:
    """Find ranks that the workers expect and nobody was started as."""
    taken = {value for *_, value in claims(scene.sights, "RANK")}
    worlds = {value for *_, value in claims(scene.sights, "WORLD_SIZE")}
    world = _whole(next(iter(worlds))) if len(worlds) == 1 else 0
    if not scene.complete or world <= len(taken) or scene.linked:
        return
    nobody = [rank for rank in range(min(world, _MAX_WORLD)) if str(rank) not in taken]
    first = ", ".join(map(str, nobody[:8])) + (" and more" if len(nobody) > 8 else "")
    yield Finding(
        "world-size",
        f"the program waits for {world} workers, and there are {len(taken)}: nobody was started "
        f"as rank {first}",
        tuple(rank for rank in nobody if rank < len(scene.row.kernels)),
        _same_world(scene),
        certain=all(one.commanded for one in scene.sights),
    )


def _same_world(scene: Scene) -> str:
    return (
        "the nodes times the devices in the program must be the number of workers that are "
        f"started: phalanx env {scene.row.session.name}"
    )


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def sockets(scene: Scene) -> Iterator[Finding]:
    """Judge by who listens, who connects where, and who is connected."""
    yield from _wrong_targets(scene)
    port, main = scene.master_port, scene.sight(0)
    if port is None or main is None or not main.alive or scene.linked:
        return
    there = [one for one in main.listening if one.local_port == port]
    if there and all(is_loopback(one.local) for one in there):
        yield Finding(
            "master-on-loopback",
            f"rank 0 listens at {place(there[0].local, port)}, where no other container reaches it",
            (0,),
            f"bind 0.0.0.0 or {scene.row.kernels[0].host_name}, not localhost, in rank 0",
        )
    elif there:
        yield from _waited_for(scene, port)
    elif not scene.joined:
        yield from _not_listening(scene, main, port)


def _not_listening(scene: Scene, main: Sight, port: int) -> Iterator[Finding]:
    others = [one for one in main.listening if not is_loopback(one.local)]
    lonely = [one for one in main.listening if is_loopback(one.local)]
    if others or lonely:
        found = (others or lonely)[0]
        yield Finding(
            "master-other-port",
            f"rank 0 listens at {place(found.local, found.local_port)}, but MASTER_PORT, where "
            f"the others look for it, is {port}; {_main_does(main)}",
            (0,),
            "let the program listen at $MASTER_PORT, or ask for the session with "
            f"--master-port {found.local_port}",
            certain=False,
        )
        return
    yield Finding(
        "master-not-listening",
        f"rank 0 does not listen at MASTER_PORT {port}; {_main_does(main)}",
        (0,),
        f"see what it does: phalanx logs {scene.row.session.name} --rank 0; {_USES}",
        certain=False,
    )


def _main_does(main: Sight) -> str:
    return f"in rank 0 {doing(main)}"


def _waited_for(scene: Scene, port: int) -> Iterator[Finding]:
    """Rank 0 listens as it should: tell who has not come, or that all wait together."""
    absent = [
        one for one in scene.sights if one.kernel.rank and one.kernel.rank not in scene.joined
    ]
    name = scene.row.session.name
    if absent:
        idle = [one for one in absent if not one.busy] or absent
        first = idle[0]
        yield Finding(
            "not-connected",
            f"rank 0 listens at MASTER_PORT {port} and has no connection of "
            f"{named([one.kernel for one in absent])}; in rank {first.kernel.rank} {doing(first)}",
            tuple(one.kernel.rank for one in absent),
            "it has not come so far, or it looks for another port or address: "
            f"phalanx logs {name} --rank {first.kernel.rank}",
            certain=False,
        )
    elif scene.complete and not any(one.busy for one in scene.sights):
        count = len(scene.row.kernels)
        yield Finding(
            "world-size",
            f"all {count} ranks are connected with rank 0's MASTER_PORT and wait: likely for more "
            "workers than there are",
            hint=f"WORLD_SIZE is {scene.variables.get('WORLD_SIZE', count)}; in the program the "
            "nodes times the devices must be that (Lightning: num_nodes, devices)",
            certain=False,
        )


def _wrong_targets(scene: Scene) -> Iterator[Finding]:
    """Find ranks that dial where nobody answers."""
    told: set[tuple[int, str, int]] = set()
    for sight in scene.sights:
        for socket in sight.of("connecting"):
            target = (sight.kernel.rank, socket.remote, socket.remote_port)
            if target in told or is_loopback(socket.remote):
                continue
            told.add(target)
            yield from _wrong_target(scene, sight, socket)


def _wrong_target(scene: Scene, sight: Sight, socket: Socket) -> Iterator[Finding]:
    port = scene.master_port
    ranks = scene.ranks_at.get(socket.remote, ())
    own, target = sight.kernel, place(socket.remote, socket.remote_port)
    hint = f"its target should be MASTER_ADDR:MASTER_PORT, {scene.row.kernels[0].host_name}:{port}"
    if not ranks:
        # Whoever may go out also waits for hosts that are none of ours.
        if socket.remote_port == port or _is_inside(scene, socket.remote):
            text = f"{named([own])} tries to connect to {target}, and no rank has that address"
            yield Finding("wrong-address", text, (own.rank,), hint)
        return
    if own.rank in ranks:
        return
    peer = scene.row.kernels[ranks[0]]
    yield Finding(
        "no-answer",
        f"{named([own])} tries to connect to {target} of {named([peer])} and gets no answer",
        (own.rank, peer.rank),
        "its program listens, but takes no connections, or a firewall drops them"
        if socket.remote_port == port
        else hint,
    )


def _is_inside(scene: Scene, address: str) -> bool:
    """Tell whether an address is near those of the ranks."""
    try:
        near = {ip_address(one).packed[:3] for one in scene.ranks_at}
        return ip_address(address).packed[:3] in near
    except ValueError:
        return False
