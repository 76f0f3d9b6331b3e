"""`phalanx forward`: a port of this machine that leads to one of a container."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Final

from phalanx_client import output
from phalanx_client.aio import AioTransport
from phalanx_client.arguments import Parser, checked
from phalanx_client.call import Call, Verb
from phalanx_client.either import leading
from phalanx_client.failure import BAD_INPUT, OK, Failure
from phalanx_client.session import Client
from phalanx_client.target import find, parse
from phalanx_client.tunnel import tunnel

LOOPBACK: Final = "127.0.0.1"
PIECE: Final = 64 << 10
_PORTS: Final = re.compile(r"(?:(?P<local>[0-9]{1,5}):)?(?P<there>[0-9]{1,5})")


def ports(text: str) -> tuple[int, int]:
    """Read `PORT` or `LOCAL:PORT`; a local 0 is any that is free.

    Raises:
        ValueError: it is neither.
    """
    match = _PORTS.fullmatch(text)
    there = int(match["there"]) if match else 0
    local = int(match["local"] or there) if match else 0
    if not 0 < there < 1 << 16 or local >= 1 << 16:
        raise ValueError(f"{text!r} is no port; write PORT or LOCAL:PORT, ports being 1 to 65535")
    return local, there


def declare(parser: Parser) -> None:
    """Options of `forward`."""
    parser.add_argument("session", metavar="SESSION[/RANK]")
    parser.add_argument("ports", metavar="[LOCAL:]PORT", type=checked(ports))


class _Local:
    """A connection to our port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def pieces(self) -> AsyncIterator[bytes]:
        """What it sends, until its end."""
        while piece := await self._reader.read(PIECE):
            yield piece

    async def write(self, data: bytes) -> None:
        """Give it data."""
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        """Say that there is no more."""
        self._writer.write_eof()


async def run(call: Call) -> int:
    """Listen, and connect every connection, until interrupted."""
    local, there = call.options.ports
    async with AioTransport(await leading(call.manager()), call.away) as transport:
        view, kernel = await find(Client(transport), parse(call.options.session))
        if kernel.state != "running":
            raise Failure(f"rank {kernel.rank} ({kernel.host_name}) is {kernel.state}", BAD_INPUT)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            one = _Local(reader, writer)
            try:
                async with tunnel(transport, view.id, kernel.rank, port=there) as way:
                    await way.relay(one.pieces(), one)
            except Failure as failure:
                output.note(f"phalanx: {failure}", quiet=call.quiet)
                writer.transport.abort()
            except ConnectionError:
                writer.transport.abort()  # whoever had connected to us has gone
            finally:
                writer.close()

        try:
            server = await asyncio.start_server(connected, LOOPBACK, local)
        except OSError as error:
            raise Failure(f"port {local} of this machine: {error.strerror or error}") from error
        async with server:
            port = server.sockets[0].getsockname()[1]
            output.say(f"{LOOPBACK}:{port} leads to {there} of {kernel.host_name} of {view.name}")
            with contextlib.suppress(asyncio.CancelledError):
                await server.serve_forever()
    return OK


VERBS = {"forward": Verb("forward SESSION[/RANK] [LOCAL:]PORT", declare, run, loop=True)}
