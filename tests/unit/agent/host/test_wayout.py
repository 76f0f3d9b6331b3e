"""What a container's way out leads to. Needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from phalanx_agent.host.wayout import narrow

SUBNET = "10.212.0.0/20"
CONTAINER = """
ip link add eth0 type veth peer name far0 && ip link add eth1 type veth peer name far1
ip address add 10.213.9.5/26 dev eth0; ip address add 10.212.0.7/20 dev eth1
for link in eth0 far0 eth1 far1; do ip link set $link up; done
ip route add default via 10.212.0.1
echo ready; exec sleep 60
"""
WIDE = [
    "default via 10.212.0.1 dev eth1",
    "10.212.0.0/20 dev eth1 proto kernel scope link src 10.212.0.7",
    "10.213.9.0/26 dev eth0 proto kernel scope link src 10.213.9.5",
]


@pytest.fixture
def container() -> Iterator[int]:
    """A process in a network like a container's."""
    argv = ["unshare", "--net", "sh", "-c", CONTAINER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def routes(pid: int) -> list[str]:
    """What `ip route` prints in a process's network."""
    argv = ["nsenter", "-t", str(pid), "--net", "ip", "-4", "route"]
    listing = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return [line.strip() for line in listing.splitlines()]


@pytest.mark.real
def test_the_way_out_leads_to_the_gateway_alone_however_often_it_is_asked_for(
    container: int,
) -> None:
    before = routes(container)
    narrow(container, SUBNET)
    once = routes(container)
    narrow(container, SUBNET)

    assert WIDE == before
    only = "10.212.0.1 dev eth1 proto static scope link src 10.212.0.7"
    assert [WIDE[0], only, WIDE[2]] == once
    assert once == routes(container)


@pytest.mark.real
@pytest.mark.parametrize("subnet", ["10.213.9.0/26", "10.212.0.0/21", "192.0.2.0/24"])
def test_routes_to_other_networks_stay(container: int, subnet: str) -> None:
    narrow(container, subnet)

    assert WIDE == routes(container)


@pytest.mark.real
def test_a_process_of_the_host_itself_or_that_has_ended_changes_nothing() -> None:
    before = routes(os.getpid())

    narrow(os.getpid(), SUBNET)
    narrow(1 << 30, SUBNET)

    assert before == routes(os.getpid())
