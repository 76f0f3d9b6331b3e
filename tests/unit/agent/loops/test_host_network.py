"""Containers on their host's network: nothing to attach, but ports that must be free."""

from __future__ import annotations

from phalanx_agent.config import parse
from phalanx_agent.loops.board import Board
from phalanx_agent.loops.sweep import HostFigures
from phalanx_wire.control import Network
from phalanx_wire.lifecycle import KernelState as S
from tests.support.agent_life import HERE, assignment, gang, goals, living
from tests.support.fake_host import FakeHost

NETWORK = Network("phx-aaaaaaaaaaaa-1", "host", "192.0.2.0/24", HERE, "host")
ON_HOST = gang(1, network=NETWORK, egress=False)
PORTS = (61000, 61001)


async def test_it_is_made_on_the_network_that_every_engine_has(host: FakeHost) -> None:
    async with living(host) as life:
        life.fleet.take(goals(assignment(S.CREATED, ports=PORTS), of=ON_HOST))
        await life.until(lambda: life.state() is S.CREATED)


async def test_a_host_whose_address_is_on_no_interface_does_not_offer_it_and_says_so() -> None:
    board = Board("boot", lambda _: True)
    config = parse({"name": "host1", "host_network": True})

    HostFigures(config, lambda: "203.0.113.9", board).tell()

    assert board.observed().host_network is None
    assert "203.0.113.9 is on none of its interfaces" in board.observed().warnings[0]


async def test_a_port_that_somebody_holds_ends_it_before_it_is_made(host: FakeHost) -> None:
    host.taken = {61001}
    async with living(host) as life:
        await life.aim(assignment(S.CREATED, ports=PORTS), of=ON_HOST)
        await life.until(lambda: life.state() is S.REJECTED)

        assert "Port 61001 of the host is taken by nc" in life.report().message
        assert "" == life.report().container_id
