"""Serves what the manager asks bytes of: exec, output, files, signals, connections."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import assert_never

import structlog

from phalanx_agent.core.seen import Absent, Created, Running
from phalanx_agent.docker.port import REMOVED, Docker, Unavailable
from phalanx_agent.docker.rounds import Rounds
from phalanx_agent.host.spool import Spool
from phalanx_agent.loops.alongside import alongside, left
from phalanx_agent.loops.converge import Fleet
from phalanx_agent.loops.execs import Execs
from phalanx_agent.loops.forward import Forwards, NetworkOf
from phalanx_agent.loops.keeper import Keeper
from phalanx_agent.loops.look import Looks
from phalanx_agent.loops.output import OutputStore, kept, send_lines
from phalanx_agent.loops.refusal import Refusal
from phalanx_wire.ids import KernelId, split_kernel_id
from phalanx_wire.lifecycle import ENDED
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.stream import (
    STDIN,
    STDOUT,
    AskCall,
    ConnectCall,
    Data,
    Eof,
    ExecCall,
    LogsCall,
    LookCall,
    Open,
    ReadCall,
    Resize,
    SignalCall,
    UploadCall,
    WriteCall,
)

_LOG = structlog.get_logger()


class Streams:
    """One task per stream. `opened` may be called at any time; it never waits."""

    def __init__(
        self,
        docker: Docker,
        fleet: Fleet,
        output: OutputStore,
        network_of: NetworkOf,
        execs: Execs,
        folder: Path,
    ) -> None:
        """Args: folder: on the disk that holds what callers have not taken or sent yet."""
        self._docker = docker
        self._folder = folder
        self._execs = execs
        self._forwards = Forwards(docker, network_of)
        self._looks = Looks(docker, network_of)
        self._fleet = fleet
        self._output = output
        self._reading = Rounds()
        self._serving: asyncio.TaskGroup | None = None
        self._early: list[tuple[Open, Stream]] = []

    async def run(self) -> None:
        """Hold the tasks of all streams, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._serving = tasks
            tasks.create_task(self._execs.clear())
            early, self._early = self._early, []
            for message, stream in early:
                self.opened(message, stream)
            await asyncio.Event().wait()

    def opened(self, message: Open, stream: Stream) -> None:
        """The manager has opened a stream."""
        if self._serving is None:
            self._early.append((message, stream))
        else:
            self._serving.create_task(self._serve(message, stream))

    async def _serve(self, message: Open, stream: Stream) -> None:
        async with stream:
            try:
                await self._answer(message, stream)
            except Refusal as refusal:
                await stream.close(code=refusal.code, why=str(refusal))
            except Unavailable as error:
                code = "not_found" if error.status == 404 else "engine_unavailable"  # HTTP's
                await stream.close(code=code, why=str(error))
            except StreamClosed:
                return  # the other side has gone
            except OSError as error:
                _LOG.warning("stream.host-failed", call=type(message.call).__name__, why=str(error))
                why = f"The host failed: {error.strerror or error}."
                await stream.close(code="unavailable", why=why)
            except Exception:  # noqa: BLE001 - this is the streams' one supervisor
                _LOG.exception("stream.failed", call=type(message.call).__name__)
                await stream.close(code="internal", why="The agent failed; its log says how.")

    async def _answer(self, message: Open, stream: Stream) -> None:
        call = message.call
        match call:
            case ExecCall(kernel=kernel):
                container_id = self._running(kernel).case.container_id
                await self._execs.serve(call, container_id, stream)
            case LogsCall():
                await self._logs(call, stream)
            case ReadCall(kernel=kernel, path=path):
                await self._read(self._container(kernel), path, stream)
            case WriteCall(kernel=kernel, path=path):
                await self._write(self._container(kernel), path, stream)
            case SignalCall():
                await self._signal(call)
                await stream.close()
            case ConnectCall(kernel=kernel):
                await self._forwards.serve(call, self._running(kernel), stream)
            case LookCall(kernel=kernel):
                await self._looks.serve(call, self._running(kernel), stream)
            case UploadCall() | AskCall():
                raise Refusal("bad_call", "That is what agents ask for, and do not give.")
            case _:
                assert_never(call)

    # ---------------------------------------------------------------- files

    # While an engine reads or writes an archive of a container nobody else gets near that: it
    # cannot be looked at or stopped, and its end is not noticed. So it never waits for a caller.

    async def _read(self, container_id: str, path: str, stream: Stream) -> None:
        with Spool(self._folder) as spool:

            async def send() -> None:
                async for chunk in spool.chunks():
                    await stream.write(STDOUT, chunk)

            coming = spool.fill(self._docker.read_archive(container_id, path))
            await alongside(send(), coming, left(stream))
        await stream.close()

    async def _write(self, container_id: str, path: str, stream: Stream) -> None:
        with Spool(self._folder) as spool:

            async def unpack() -> None:
                await spool.ready()
                await self._docker.write_archive(container_id, path, spool.chunks())

            await alongside(unpack(), spool.fill(_stdin(stream)))
        await stream.close()

    # ---------------------------------------------------------------- output

    async def _logs(self, call: LogsCall, stream: Stream) -> None:
        keeper = self._fleet.keeper(call.kernel)
        while (
            keeper is not None
            and call.follow
            and isinstance(keeper.case.seen.container, Absent | Created)
            and not self._output.has(call.kernel)
            and keeper.case.state not in ENDED
        ):
            await alongside(keeper.case.news.wait(), left(stream))
        container_id = keeper.case.container_id if keeper is not None else ""
        session, _, _ = split_kernel_id(call.kernel)
        if container_id and not self._output.has(call.kernel):
            pieces = self._docker.logs(
                container_id,
                session=session,
                since_ns=call.since_ns,
                tail=call.tail,
                follow=call.follow,
            )
        elif self._output.has(call.kernel):
            pieces = kept(self._output, call.kernel, since_ns=call.since_ns, tail=call.tail)
        elif keeper is None:
            raise Refusal("output_gone", f"The output of {call.kernel} is not kept here any more.")
        else:
            await stream.close()
            return
        try:
            await send_lines(pieces, stream, partial(self._reading.of, session))
        except Unavailable as error:
            if error.status in REMOVED:  # meanwhile: whoever asks again has the copy that is kept
                raise Refusal("not_found", str(error)) from error
            raise
        await stream.close()

    # ---------------------------------------------------------------- signals and look-ups

    async def _signal(self, call: SignalCall) -> None:
        number = call.signal
        if number not in signal.valid_signals():
            raise Refusal("bad_signal", f"There is no signal {number}.")
        keeper = self._running(call.kernel)
        if call.to != "command":
            self._execs.signal_tasks(call.kernel, number)
        if call.to != "tasks" and not keeper.signal(number):
            await self._docker.kill(keeper.case.container_id, _signal_name(number))

    def _container(self, kernel: KernelId) -> str:
        keeper = self._fleet.keeper(kernel)
        if keeper is None or not keeper.case.container_id:
            raise Refusal("no_container", f"{kernel} has no container now.")
        return keeper.case.container_id

    def _running(self, kernel: KernelId) -> Keeper:
        keeper = self._fleet.keeper(kernel)
        if keeper is None or not isinstance(keeper.case.seen.container, Running):
            raise Refusal("not_running", f"{kernel} does not run now.")
        return keeper


def _signal_name(number: int) -> str:
    """Name a signal as engines do; most of the real-time ones have a number only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


async def _stdin(stream: Stream) -> AsyncIterator[bytes]:
    """What the caller sends, until its end; half of it counts as an error of its own."""
    async for item in stream:
        match item:
            case Data(channel=channel, data=data) if channel == STDIN:
                yield data
            case Eof():
                return
            case Data() | Resize():
                continue
    raise Refusal("cancelled", "The sender left before the end.")
