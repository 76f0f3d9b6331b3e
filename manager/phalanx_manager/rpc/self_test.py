"""Before we serve, see that the door is really closed to strangers."""

from __future__ import annotations

import asyncio
from typing import Final

import zmq
import zmq.asyncio
import zmq.utils.monitor

from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.keys import make_pair
from phalanx_manager.rpc.zap import Door

_WAIT_S: Final = 10.0


async def refuses_strangers(
    context: zmq.asyncio.Context, address: str, server_key: str, door: Door
) -> None:
    """Knock with a key that is nobody's and see it refused.

    Raises:
        Unavailable: it was let in, or nobody answered.
    """
    stranger = make_pair()
    door.self_test_key = stranger.public
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.ipv6 = "[" in address
    socket.curve_serverkey = server_key.encode()
    socket.curve_publickey = stranger.public.encode()
    socket.curve_secretkey = stranger.secret.encode()
    monitor = socket.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    )
    try:
        socket.connect(_reachable(address))
        async with asyncio.timeout(_WAIT_S):
            event = zmq.utils.monitor.parse_monitor_message(await monitor.recv_multipart())
    except TimeoutError as error:
        raise Unavailable(address, "test the agents' port: no answer to a handshake") from error
    finally:
        socket.disable_monitor()
        monitor.close(linger=0)
        socket.close(linger=0)
    if event["event"] != zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        raise Unavailable(
            address, "test the agents' port: it let a stranger in", "do not run this manager"
        )


def _reachable(address: str) -> str:
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
