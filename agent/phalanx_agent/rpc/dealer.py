"""One encrypted connection to the manager, from its handshake to its loss."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import structlog
import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from phalanx_agent.rpc.identity import KeyPair
from phalanx_wire import codec
from phalanx_wire.codec import AnyMessage
from phalanx_wire.control import Message

CONNECT_S: Final = 5.0
QUEUE_MESSAGES: Final = 1000

_LOG = structlog.get_logger()
_OPTIONS: Final = {
    zmq.LINGER: 0,
    zmq.SNDHWM: QUEUE_MESSAGES,
    zmq.RCVHWM: QUEUE_MESSAGES,
    zmq.MAXMSGSIZE: codec.MAX_GOALS_BYTES,
    zmq.HEARTBEAT_IVL: 2000,
    zmq.HEARTBEAT_TIMEOUT: 8000,
    zmq.HEARTBEAT_TTL: 10000,
    zmq.RECONNECT_IVL: 100,
    zmq.RECONNECT_IVL_MAX: 1000,
    zmq.CONNECT_TIMEOUT: 3000,
    zmq.HANDSHAKE_IVL: 5000,
    zmq.TCP_KEEPALIVE: 1,
    zmq.IMMEDIATE: 1,  # what is said while nobody listens is not said later
    zmq.IPV6: 1,
}
_AUTH_REFUSED: Final = 400


class Unavailable(Exception):  # noqa: N818 - a state of the world
    """The manager cannot be spoken to.

    Attributes:
        doing: what was tried, e.g. `connecting to tcp://10.0.0.1:7911`.
        hint: what to look at, as a sentence.
        stranger: the manager was reached, and does not know the key.
    """

    def __init__(self, doing: str, hint: str, *, stranger: bool = False) -> None:
        super().__init__(f"the manager: {doing} failed. {hint}")
        self.doing = doing
        self.hint = hint
        self.stranger = stranger


class Dealer:
    """A connection whose handshake has succeeded; made by `connect`."""

    def __init__(self, socket: zmq.asyncio.Socket, monitor: zmq.asyncio.Socket) -> None:
        self._socket = socket
        self._monitor = monitor

    def say(self, message: Message) -> bool:
        """Send at once or not at all; False when it could not be sent."""
        sent = asyncio.ensure_future(self._socket.send(codec.encode(message), zmq.NOBLOCK))
        if sent.done():
            return sent.exception() is None
        sent.add_done_callback(_forget)  # it stands behind others that wait for room
        return True

    async def send(self, message: Message) -> None:
        """Send when there is room, however long that takes: a stream with a piece left out would
        go on as if it were whole. A lost connection is told by `lost`, not here.
        """
        with contextlib.suppress(zmq.ZMQError):
            await self._socket.send(codec.encode(message))

    async def receive(self, take: Callable[[AnyMessage], None]) -> None:
        """Hand on what comes; nonsense is logged and dropped. It ends by being cancelled."""
        while True:
            parts = await self._socket.recv_multipart()
            try:
                message = codec.decode(parts[-1], codec.MAX_GOALS_BYTES)
            except msgspec.MsgspecError as error:
                _LOG.warning("link.malformed", why=str(error), size=len(parts[-1]))
                continue
            take(message)

    async def lost(self) -> None:
        """Return when the connection has broken."""
        while True:
            event = parse_monitor_message(await self._monitor.recv_multipart())
            if event["event"] in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
                return


def _forget(sent: asyncio.Future[Any]) -> None:
    if not sent.cancelled():
        sent.exception()  # a connection that broke is noticed elsewhere


@asynccontextmanager
async def connect(
    context: zmq.asyncio.Context,
    address: str,
    server_key: str,
    own: KeyPair,
    *,
    alone: bool = True,
) -> AsyncIterator[Dealer]:
    """Connect and shake hands. Where this address is not `alone`, one that refuses is not tried
    again: another manager may be leading at the next.

    Raises:
        Unavailable: nobody is there, it is not the manager, or it does not know the key.
    """
    socket = context.socket(zmq.DEALER)
    monitor: zmq.asyncio.Socket | None = None
    try:
        for option, value in _OPTIONS.items():
            socket.setsockopt(option, value)
        socket.curve_serverkey = server_key.encode()
        socket.curve_publickey = own.public.encode()
        socket.curve_secretkey = own.secret.encode()
        monitor = socket.get_monitor_socket()
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            raise Unavailable(f"connecting to {address}", f"{error}.") from error
        await _shaken(monitor, address, alone=alone)
        yield Dealer(socket, monitor)
    finally:
        if monitor is not None:
            socket.disable_monitor()
            monitor.close(linger=0)
        socket.close(linger=0)


async def _shaken(monitor: zmq.asyncio.Socket, address: str, *, alone: bool) -> None:
    """Wait for the end of the handshake.

    Raises:
        Unavailable: it failed, or took too long.
    """
    doing = f"connecting to {address}"
    hint = "Is the manager running, and is its port open?"
    try:
        async with asyncio.timeout(CONNECT_S):
            while True:
                event = parse_monitor_message(await monitor.recv_multipart())
                match event["event"]:
                    case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                        return
                    case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                        raise Unavailable(
                            doing,
                            "It does not know this agent's key: the agent was removed, or its "
                            "join token is used up or too old. Make a new one with "
                            "`phalanx token create --agent`.",
                            stranger=event["value"] == _AUTH_REFUSED,
                        )
                    case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                        hint = (
                            "What answers there is not the manager that this agent joined, or "
                            "its key has changed."
                        )
                    case zmq.EVENT_CONNECT_RETRIED if not alone:
                        raise Unavailable(doing, hint)
                    case _:
                        pass
    except TimeoutError as error:
        raise Unavailable(doing, hint) from error
