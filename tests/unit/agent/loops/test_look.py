"""Looks at containers, over two muxes joined by a queue and real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from phalanx_wire.control import Member
from phalanx_wire.lifecycle import KernelState as S
from phalanx_wire.look import Look
from phalanx_wire.stream import LookCall
from tests.support.agent_life import HERE, MAIN1, assignment, gang
from tests.support.fake_host import FakeHost
from tests.unit.agent.loops import test_streams
from tests.unit.agent.loops.test_streams import STRANGE


@contextmanager
def mute() -> Iterator[int]:
    """A port at which nothing answers, as behind a link that was cut: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            yield port


def member(rank: int, port: int) -> Member:
    return Member(rank, f"sub{rank}", HERE, "127.0.0.1", "hk", "uk", ssh_port=port)


async def test_the_way_to_peers_is_tried_from_inside_and_only_to_those_asked_for(
    host: FakeHost,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, mute() as silent:
        own = Member(0, "main1", HERE, "127.0.0.1", "hk", "uk")
        there = member(1, server.getsockname()[1])
        members = (own, there, member(2, 1), member(3, silent), member(4, silent))
        async with test_streams.desk(host, None) as manager:
            for goal in (S.READY, S.RUNNING):
                await manager.life.aim(assignment(goal), of=gang(members=members))
            await manager.life.until(lambda: manager.life.state() == S.RUNNING)
            data, _ = await manager.answer(LookCall(MAIN1, (1, 2, 3)))

    look = msgspec.msgpack.decode(data, type=Look)
    assert {1: "open", 2: "refused", 3: "silent"} == {one.rank: one.answer for one in look.reach}
    assert {-1} == {made.fileno() for made in manager.network.made}


async def test_what_does_not_run_is_not_looked_at(host: FakeHost) -> None:
    async with test_streams.desk(host) as manager:
        strange = await manager.refusal(LookCall(STRANGE))
        manager.network.alive = False
        gone = await manager.refusal(LookCall(MAIN1))

    assert ("not_running", "not_running") == (strange, gone)
