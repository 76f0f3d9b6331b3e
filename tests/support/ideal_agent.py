"""An agent without an engine: it brings every kernel at once to where it shall be, and says so."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import zmq
import zmq.asyncio

from phalanx_wire import loglines
from phalanx_wire.api import LogLine
from phalanx_wire.codec import decode, encode
from phalanx_wire.control import (
    PROTOCOL,
    Assignment,
    Engine,
    Enrol,
    Enrolled,
    Goals,
    Hello,
    KernelReport,
    Message,
    NetworkReport,
    Observed,
    SwarmReport,
    Welcome,
)
from phalanx_wire.ids import AgentId
from phalanx_wire.join import JoinToken
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Mux, Stream
from phalanx_wire.slots import Slots
from phalanx_wire.stream import STDOUT, ExecCall, LogsCall

PATIENCE_S = 10.0


class IdealAgent:
    """Runs until cancelled. A command `exit N` ends with N as soon as it runs; others run on.

    Attributes:
        reports: the newest report of each kernel.
    """

    def __init__(self, name: str, token: JoinToken) -> None:
        self.name = AgentId(name)
        self.reports: dict[str, KernelReport] = {}
        self._token = token
        self._public, self._secret = zmq.curve_keypair()
        self._networks: dict[str, NetworkReport] = {}
        self._incarnation = secrets.token_hex(8)
        self._revision = -1
        self._swarm = SwarmReport()

    @asynccontextmanager
    async def _socket(self, public: bytes, secret: bytes) -> AsyncIterator[zmq.asyncio.Socket]:
        context = zmq.asyncio.Context.instance()
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.curve_serverkey = self._token.server_key.encode()
        socket.curve_publickey, socket.curve_secretkey = public, secret
        socket.connect(self._token.addresses[0])
        try:
            yield socket
        finally:
            socket.close(linger=0)

    async def join(self) -> None:
        """Spend the join token."""
        secret = self._token.secret_key.encode()
        async with self._socket(zmq.curve_public(secret), secret) as socket:
            await socket.send(encode(Enrol(PROTOCOL, self.name, self._public.decode())))
            async with asyncio.timeout(PATIENCE_S):
                answer = decode(await socket.recv())
            assert isinstance(answer, Enrolled), answer

    async def run(self, ready: asyncio.Event) -> None:
        """Serve the manager."""
        async with self._socket(self._public, self._secret) as socket:
            await socket.send(encode(Hello(PROTOCOL, "test", self.name, self._incarnation)))
            async with asyncio.timeout(PATIENCE_S):
                assert isinstance(decode(await socket.recv()), Welcome)
            await self._report(socket)
            ready.set()

            async def send(message: Message) -> None:
                await socket.send(encode(message))

            async with asyncio.TaskGroup() as tasks:
                mux = Mux(send, 1, lambda _open, s: _ignore(tasks.create_task(self._serve(s))))
                while True:
                    message = decode(await socket.recv())
                    if isinstance(message, Goals):
                        self.take(message)
                        await self._report(socket)
                    else:
                        mux.receive(message)

    def take(self, goals: Goals) -> None:
        """Bring everything to its goal."""
        self._revision = goals.revision
        for order in goals.networks:
            name = order.network.name
            if order.present:
                self._networks[name] = NetworkReport(name, engine_id=f"id-of-{name}")
            else:
                self._networks.pop(name, None)
        for kernel in goals.kernels:
            self.reports[kernel.kernel] = self._after(kernel)

    def _after(self, kernel: Assignment) -> KernelReport:
        state = kernel.goal
        before = self.reports.get(kernel.kernel)
        code: int | None = None
        if state is KernelState.RUNNING and kernel.command[:1] == ("exit",):
            state, code = KernelState.EXITED, int(kernel.command[1])
        if before is not None and before.state > state:
            return before
        if before is not None and state is KernelState.REMOVED:
            code = before.exit_code
        cause = {KernelState.EXITED: "exited", KernelState.STOPPED: "cancelled"}.get(state, "")
        return KernelReport(
            kernel.kernel,
            state,
            cause=cause,
            exit_code=code,
            container_id=f"c-{kernel.kernel}",
            host_key="ssh-ed25519 AAAA host",
            user_key="ssh-ed25519 AAAA user",
        )

    def observed(self) -> Observed:
        """What it would report now."""
        return Observed(
            "boot",
            self._revision,
            Slots(1_000_000, 1 << 44, 0, 100_000_000),
            "10.0.0.1",
            Engine("27.0", "1.47"),
            kernels=tuple(self.reports.values()),
            networks=tuple(self._networks.values()),
        )

    async def _report(self, socket: zmq.asyncio.Socket) -> None:
        await socket.send(encode(self.observed()))

    async def _serve(self, stream: Stream) -> None:
        async with stream:
            match stream.call:
                case LogsCall(kernel=kernel):
                    for chunk in loglines.pack([LogLine(1, False, f"hello from {kernel}")]):
                        await stream.write(STDOUT, chunk)
                    await stream.close()
                case ExecCall(command=command):
                    await stream.write(STDOUT, " ".join(command).encode())
                    await stream.close(exit_code=0)
                case _:
                    await stream.close(code="bad_call", why="not served")


def _ignore(_task: object) -> None:
    return None
