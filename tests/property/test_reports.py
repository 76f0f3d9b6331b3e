"""Whatever an agent says of its host and its kernels, however wrong: the manager goes on, keeps it,
and can tell it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx_manager.core import why
from phalanx_manager.core.doubt import doubt
from phalanx_manager.http import views
from phalanx_wire.codec import decode, encode
from phalanx_wire.control import (
    Engine,
    Gpu,
    HostNetwork,
    KernelReport,
    NetworkReport,
    Observed,
    Stray,
    SwarmReport,
)
from phalanx_wire.ids import AgentId, SessionId, kernel_id
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.names import network_name
from phalanx_wire.slots import Slots
from tests.support.house import in_swarm
from tests.unit.manager.loops.conftest import ADA, House, Player

PATIENCE_S = 20.0
ONE, TWO = SessionId("aaaaaaaaaaaa"), SessionId("bbbbbbbbbbbb")
A = AgentId("a")

NUMBERS = st.sampled_from(
    [-(1 << 63), -(1 << 31) - 1, -1, 0, 1, 255, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]
)
ODD = ["", "\0", "\x1b[2J\u202e", "x" * 300, "a\nb", "\U0010ffff\ud7ff"]
TEXTS = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LINES = st.sampled_from(["", "ssh-ed25519 AAAA", "x" * 300, "\n"])
KERNELS = st.sampled_from(
    [
        *(kernel_id(session, attempt, rank) for session in (ONE, TWO) for attempt in (1, 2)
          for rank in (0, 1, 2)),
        "", "../../x", "aaaaaaaaaaaa-0-0", "aaaaaaaaaaaa-1-999999", "9" * 300,
    ]
)  # fmt: skip
REPORTS = st.builds(
    KernelReport,
    kernel=KERNELS,
    state=st.sampled_from(KernelState),
    detail=TEXTS,
    cause=st.sampled_from(["exited", "lost", "fenced", "oom", "engine-restart"]) | TEXTS,
    message=TEXTS,
    exit_code=st.none() | st.sampled_from([0, 1, -1, 1 << 31]),
    container_id=LINES,
    host_key=LINES,
    user_key=LINES,
    warnings=st.lists(TEXTS, max_size=2).map(tuple),
    folders=st.dictionaries(TEXTS, TEXTS, max_size=2),
)
NETWORKS = st.builds(
    NetworkReport,
    name=st.sampled_from([network_name(ONE, 1), network_name(TWO, 1), network_name(ONE, 2)])
    | TEXTS,
    engine_id=TEXTS,
    problem=TEXTS,
    final=st.booleans(),
)
SWARMS = st.builds(
    SwarmReport,
    state=st.sampled_from(["active", "inactive", "pending", "locked"]) | TEXTS,
    swarm_id=TEXTS,
    node_id=TEXTS,
    control=st.booleans(),
    address=TEXTS,
    worker_token=TEXTS,
    manager_token=TEXTS,
    problem=TEXTS,
    canary_ok=st.booleans(),
)
HOSTS = st.builds(
    Observed,
    boot_id=TEXTS,
    revision=NUMBERS,
    capacity=st.sampled_from([Slots(4000, 32 << 30, 1, 1000), Slots(0, 0, 1, 0)]),
    address=st.sampled_from(["192.0.2.1", "", "::1", "0.0.0.0", "fe80::1%eth0"]),
    engine=st.builds(Engine, TEXTS, TEXTS, TEXTS),
    gpus=st.just((Gpu("0", "h200"),)),
    kernels=st.lists(REPORTS, max_size=6).map(tuple),
    networks=st.lists(NETWORKS, max_size=3).map(tuple),
    strays=st.lists(st.builds(Stray, st.just("files"), TEXTS), max_size=2).map(tuple),
    swarm=SWARMS,
    addresses=st.lists(st.sampled_from(["192.0.2.1", "10.213.0.1", "::"]), max_size=2).map(tuple),
    subnets=st.lists(st.sampled_from(["0.0.0.0/0", "10.213.0.0/16"]), max_size=2).map(tuple),
    warnings=st.lists(TEXTS, max_size=2).map(tuple),
    host_network=st.none() | st.builds(HostNetwork, TEXTS, st.just(1), st.just(65_535)),
    left=st.booleans(),
    number=NUMBERS,
)  # fmt: skip


async def live_through(path: str, said: Sequence[Observed]) -> None:
    """Two hosts with a session on both and one on either; one of them says all this."""
    house = House(path)
    await house.join("a", "b")
    players = (
        Player(house, "a", in_swarm("a", control=True, cpu=4)),
        Player(house, "b", in_swarm("b", cpu=4)),
    )
    for player in players:
        player.connect()
    await house.settle()
    await house.submit(ONE, size=2, mode="multi-node", requeue=True)
    await house.submit(TWO, size=1)
    await house.settle()
    for player in players:
        player.obey()
    await house.settle()
    for report in said:
        heard = decode(encode(report))
        assert isinstance(heard, Observed)
        if not doubt(heard):
            house.converge.observed(A, heard)
        house.clock.passed_s += 1
        async with asyncio.timeout(PATIENCE_S):
            await house.settle()
            house.govern.bell.ring()
            await house.govern.turn()
        await told(house)
    house.kill()
    await told(house)
    house.store.close()


async def told(house: House) -> None:
    """All of it can be told: to people, to programs, to agents."""
    snapshot = await house.store.load()
    for row in snapshot.rows():
        msgspec.json.encode(views.session(row))
        assert why.findings(why.scene(row, {}, {}), snapshot.agents, house.clock.now())
    for node in views.nodes(snapshot, house.clock.now(), ADA):
        msgspec.json.encode(node)
    for goals in house.post.told.values():
        decode(encode(goals))
    for event in await house.store.events(0, None, 500):
        msgspec.json.encode(event)


@settings(max_examples=40)
@given(st.lists(HOSTS, min_size=1, max_size=4))
def test_whatever_an_agent_says_the_manager_goes_on_and_can_tell_it(said: list[Observed]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live_through(str(Path(folder) / "phalanx.db"), said))
