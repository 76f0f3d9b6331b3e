"""Connections into containers: made inside of their network, relayed over a stream."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Final, Never, Protocol

import structlog

from phalanx_agent.docker.port import Docker
from phalanx_agent.host.inside import ProcessGone
from phalanx_agent.loops.case import Case
from phalanx_agent.loops.keeper import Keeper
from phalanx_agent.loops.refusal import Refusal
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.ssh_key import public_key
from phalanx_wire.stream import CHUNK_BYTES, STDIN, STDOUT, ConnectCall, Data, Eof

_LOG = structlog.get_logger()
_CONNECT_S: Final = 10.0
_LOOPBACK: Final = "127.0.0.1"
_LAST_PORT: Final = 65_535


class Network(Protocol):
    """A process's network, as `host.inside.ProcessNetwork` is."""

    def still_lives(self) -> bool:
        """Tell whether the process has not ended yet."""

    def tcp_socket(self) -> socket.socket:
        """Make a socket there. Raises `OSError`."""


NetworkOf = Callable[[int], AbstractContextManager[Network]]
"""Holds the network of a process by its number. Raises `ProcessGone`."""


class Forwards:
    """Makes connections into containers and relays them."""

    def __init__(self, docker: Docker, network_of: NetworkOf) -> None:
        self._docker = docker
        self._network_of = network_of

    async def serve(self, call: ConnectCall, keeper: Keeper, stream: Stream) -> None:
        """Connect, and relay until both directions have ended.

        Raises:
            Refusal: there is nothing to connect to.
            Unavailable: the engine does not answer.
            StreamClosed: the caller has left.
        """
        if not 0 <= call.port <= _LAST_PORT:
            raise Refusal("bad_port", f"{call.port} is no port; use 1 to {_LAST_PORT}.")
        if call.authorize:
            _authorize(keeper, call.authorize)
        async with self._connected(keeper, call.port) as (reader, writer):
            _LOG.debug("forward.begun", kernel=call.kernel, port=call.port)
            try:
                await _relay(reader, writer, stream)
            except OSError as error:
                why = f"The connection inside the container broke: {error.strerror or error}."
                raise Refusal("connection_reset", why) from error
        await stream.close()

    @asynccontextmanager
    async def _connected(
        self, keeper: Keeper, port: int
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        connection = await self._connect(keeper, port)
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
        except BaseException:
            connection.close()
            raise
        # Nothing waits in our memory, so that what has been drained is sent whatever comes.
        writer.transport.set_write_buffer_limits(high=0)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connect(self, keeper: Keeper, port: int) -> socket.socket:
        """Connect to a port on the container's loopback, or else on its own address."""
        case = keeper.case
        async with of_container(self._docker, self._network_of, case) as network:
            member = next(m for m in case.members if m.host_name == case.aim.assignment.host_name)
            chosen = port or member.ssh_port
            try:
                return await _first(network, (_LOOPBACK, member.address), chosen)
            except TimeoutError as error:
                why = f"Nobody answers at port {chosen} of {member.host_name}."
                raise Refusal("connection_timeout", why) from error
            except OSError as error:
                why = f"Port {chosen} of {member.host_name}: {error.strerror or error}."
                raise Refusal("connection_refused", why) from error


@asynccontextmanager
async def of_container(docker: Docker, network_of: NetworkOf, case: Case) -> AsyncIterator[Network]:
    """Hold the network of a kernel's container: of no other, and of no process that came after it.

    Raises:
        Refusal: it does not run.
        Unavailable: the engine does not answer.
    """
    if case.pid is None:
        raise _not_running(case.kernel)
    try:
        with network_of(case.pid) as network:
            facts = await docker.inspect(case.container_id)
            same = facts is not None and facts.status == "running" and facts.pid == case.pid
            if not same or not network.still_lives():
                raise _not_running(case.kernel)
            yield network
    except ProcessGone as error:
        raise _not_running(case.kernel) from error


def _not_running(kernel: str) -> Refusal:
    return Refusal("not_running", f"{kernel} does not run now.")


async def _first(network: Network, addresses: tuple[str, ...], port: int) -> socket.socket:
    """Connect to the first address that accepts; the last one's failure counts."""
    *others, last = (address for address in addresses if address)
    for address in others:
        with contextlib.suppress(ConnectionRefusedError):
            return await _dial(network, address, port)
    return await _dial(network, last, port)


async def _dial(network: Network, address: str, port: int) -> socket.socket:
    made = network.tcp_socket()
    try:
        async with asyncio.timeout(_CONNECT_S):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made


def _authorize(keeper: Keeper, line: str) -> None:
    """Let a key into the container's ssh server."""
    try:
        key = public_key(line)
    except ValueError as error:
        raise Refusal("bad_key", f"The public key: {error}.") from error
    try:
        keeper.authorize(key)
    except OSError as error:
        raise _not_running(keeper.case.kernel) from error  # its material has just been cleared


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream
) -> None:
    """Relay until both directions have ended; a caller that leaves ends it also while the
    container takes nothing.

    Raises:
        StreamClosed: the caller has left.
        OSError: the connection broke.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            gone = tasks.create_task(_left(stream))
            ways = (
                tasks.create_task(_inward(stream, writer)),
                tasks.create_task(_outward(reader, stream)),
            )
            await asyncio.wait(ways)
            gone.cancel()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _inward(stream: Stream, writer: asyncio.StreamWriter) -> None:
    """Hand on what the caller sends, until its end.

    Raises:
        StreamClosed: the caller has left.
    """
    async for item in stream:
        match item:
            case Data(channel=channel, data=data) if channel == STDIN:
                writer.write(data)
                await writer.drain()
            case Eof():
                await writer.drain()
                writer.write_eof()
                return
            case _:
                continue
    raise StreamClosed(await stream.ended())


async def _outward(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(CHUNK_BYTES):
        await stream.write(STDOUT, data)
    await stream.eof()


async def _left(stream: Stream) -> Never:
    raise StreamClosed(await stream.ended())
