"""The ports that the daemons open: the manager's, and no agent's."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator

import pytest

from phalanx_lab.plan import RPC_PORT
from tests.real.ground import ACROSS, Ground

pytestmark = pytest.mark.real

SYS_PIDFD_GETFD = 438
INTERNET = (socket.AF_INET, socket.AF_INET6)

Port = tuple[str, str, int]
"""`tcp` or `udp`, address, number."""


def test_the_manager_listens_at_its_own_ports_alone_and_agents_at_none(clean: Ground) -> None:
    plan = clean.lab.plan
    with clean.created("-N", "3", *ACROSS) as name:
        clean.inside(name, "true").ok()
        found = {part: open_ports(clean.lab.pid(part)) for part in clean.lab.status().components}

    own = {("tcp", "127.0.0.1", plan.http_port), ("tcp", plan.manager_address, RPC_PORT)}
    assert own == found["manager"]
    assert [set()] * 3 == [found[f"agent-{host.index}"] for host in clean.lab.hosts]
    # The same look finds what is there: an engine's ports of its swarm.
    swarm = {("tcp", 2377), ("tcp", 7946), ("udp", 7946)}
    assert swarm <= {(kind, number) for kind, _, number in found["engine-1"]}


def open_ports(pid: int) -> set[Port]:
    """TCP ports at which a process listens, and UDP ports at which it hears anybody, in whichever
    network each of its sockets is.
    """
    return {port for held in sockets(pid) if (port := opened(held))}


def opened(held: socket.socket) -> Port | None:
    """The port that a socket opens to others; None when it opens none."""
    with held:
        if held.family not in INTERNET:
            return None
        address, number = held.getsockname()[:2]
        if held.type == socket.SOCK_STREAM:
            listens = held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return ("tcp", address, number) if listens else None
        with contextlib.suppress(OSError):
            held.getpeername()
            return None
        return ("udp", address, number)


def sockets(pid: int) -> Iterator[socket.socket]:
    """All sockets of a process, each under a descriptor of ours."""
    process = os.pidfd_open(pid)
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if os.readlink(f"/proc/{pid}/fd/{entry}").startswith("socket:"):
                    mine = ctypes.CDLL(None).syscall(SYS_PIDFD_GETFD, process, int(entry), 0)
                    if mine >= 0:
                        yield socket.socket(fileno=mine)
    finally:
        os.close(process)
