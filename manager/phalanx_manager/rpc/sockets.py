"""The sockets' options, each for a reason that was measured."""

from __future__ import annotations

import os

import zmq
import zmq.asyncio

from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.keys import ServerKeys
from phalanx_manager.rpc.zap import DOMAIN
from phalanx_wire.codec import MAX_MESSAGE_BYTES


def bind_router(
    context: zmq.asyncio.Context, bind: str, keys: ServerKeys
) -> tuple[zmq.asyncio.Socket, zmq.asyncio.Socket]:
    """Open the agents' port.

    Returns:
        The socket, and one that tells of its lost connections.

    Raises:
        Unavailable: the address cannot be bound.
    """
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.ipv6 = "[" in bind
    socket.curve_server = True
    socket.curve_secretkey = keys.secret.encode()
    socket.curve_publickey = keys.public.encode()
    socket.zap_domain = DOMAIN
    socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it a dead door would let everybody in
    socket.router_mandatory = 1  # sending to who is gone fails, instead of pretending
    # No ROUTER_HANDOVER: routes are made by us, so nobody can take over somebody else's.
    # To each agent; what is said to it next stands behind so much. Full, it has room again when
    # half is taken, and who does not take that in time is dropped: 2 MiB of streams.
    socket.sndhwm = 64
    socket.rcvhwm = 16  # of each agent; it waits then, and what it has said takes 64 MiB at most
    socket.maxmsgsize = MAX_MESSAGE_BYTES
    socket.backlog = 1_024
    socket.handshake_ivl = 5_000
    socket.heartbeat_ivl = 2_000
    socket.heartbeat_timeout = 8_000
    socket.heartbeat_ttl = 10_000
    socket.tcp_keepalive = 1
    monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    monitor.linger = 0
    try:
        socket.bind(bind)
    except zmq.ZMQError as error:
        raise Unavailable(
            bind,
            f"listen for agents: {os.strerror(error.errno or 0)}",
            "is another manager running on this machine?"
            if error.errno == zmq.EADDRINUSE
            else "`rpc` in the manager's configuration is tcp://<address of this machine>:<port>",
        ) from error
    return socket, monitor
