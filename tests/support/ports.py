"""Ports for servers that tests start."""

from __future__ import annotations

import socket
from typing import Final

_BELOW_EPHEMERAL: Final = range(20_000, 32_768)
"""Linux gives connections that go out ports from 32768 on (`ip_local_port_range`): any of them may
take such a port between its choice and the server's bind."""
_HELD: Final[list[socket.socket]] = []


def free_port() -> int:
    """Choose a port that nobody listens at; no other test is given it while this process lives."""
    for port in _BELOW_EPHEMERAL:
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            holder.bind(f"\0phalanx-test-port-{port}")
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            holder.close()
            continue
        _HELD.append(holder)
        return port
    raise AssertionError(f"no port is free of {_BELOW_EPHEMERAL}")
