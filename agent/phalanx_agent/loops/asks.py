"""What containers ask: passed on to the manager, and the answer back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Never

import structlog

from phalanx_agent.loops.alongside import alongside
from phalanx_runner import ask
from phalanx_runner.ask import Asker, Door, Input, Malformed, Question, Resized, Signalled
from phalanx_wire.ids import KernelId
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.stream import BEGUN, SIGNAL, STDERR, STDIN, STDOUT, AskCall, Closed, Data

_LOG = structlog.get_logger()

PATIENCE_S: Final = 60.0
"""For the manager's first word; it may be away for a while."""

AT_ONCE: Final = 32
"""Of one container; whoever asks for more is told so."""

_USAGE, _AWAY, _BUSY = 64, 69, 75
_LINK_LOST: Final = "link_lost"

OpenStream = Callable[[AskCall], Awaitable[Stream]]


class _Gone(Exception):  # noqa: N818 - processes end
    """Nobody waits for the answer any more."""


class Asks:
    """One task per question. Doors are opened by the keepers, one for each container."""

    def __init__(self, open_stream: OpenStream, patience_s: float = PATIENCE_S) -> None:
        """Args: open_stream: to the manager. Raises `StreamClosed` while that is away."""
        self._open_stream = open_stream
        self._patience_s = patience_s
        self._linked = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._running: Counter[KernelId] = Counter()

    async def run(self) -> None:
        """Hold the tasks of all questions, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await asyncio.Event().wait()
        finally:
            self._tasks = None

    def linked(self) -> None:
        """There is a new connection to the manager: who was cut off asks again."""
        linked, self._linked = self._linked, asyncio.Event()
        linked.set()

    @contextlib.contextmanager
    def door(self, kernel: KernelId, folder: Path) -> Iterator[None]:
        """Listen to what a container asks.

        Raises:
            OSError: the folder cannot be used.
        """
        with Door.open(folder, partial(self._come, kernel)):
            yield

    def _come(self, kernel: KernelId, door: Door, peer: socket.socket) -> None:
        if self._tasks is None:
            peer.close()  # it comes again
            door.read()
        else:
            self._tasks.create_task(self._serve(kernel, door, peer))

    async def _serve(self, kernel: KernelId, door: Door, peer: socket.socket) -> None:
        with contextlib.ExitStack() as reading:
            reading.callback(door.read)
            try:
                async with Asker.on(peer) as asker:
                    try:
                        async with asyncio.timeout(ask.QUESTION_S):
                            question = await asker.question()
                        reading.close()
                        await self._answer(kernel, question, asker)
                    except Malformed as error:
                        await asker.end(_USAGE, str(error))
            except (_Gone, EOFError, OSError, TimeoutError) as error:
                _LOG.debug("ask.left", kernel=kernel, why=str(error))
            except Exception:  # noqa: BLE001 - this is the questions' one supervisor
                _LOG.exception("ask.failed", kernel=kernel)

    async def _answer(self, kernel: KernelId, question: Question, asker: Asker) -> None:
        if self._running[kernel] >= AT_ONCE:
            why = f"{AT_ONCE} commands of this container are under way; try again later."
            await asker.end(_BUSY, why)
            return
        self._running[kernel] += 1
        try:
            line = _Line(asker)
            await alongside(self._pass_on(_call(kernel, question), line), line.hear(), line.feed())
        finally:
            self._running[kernel] -= 1
            self._running += Counter()  # forgets those without any

    async def _pass_on(self, call: AskCall, line: _Line) -> None:
        """Ask the manager, again when the link broke before it had said anything."""
        asker = line.asker
        try:
            async with asyncio.timeout(self._patience_s) as patience:
                while True:
                    linked = self._linked
                    closed = await self._once(call, line, patience)
                    if closed.code != _LINK_LOST or asker.heard:
                        break
                    await linked.wait()
        except TimeoutError:
            await asker.end(_AWAY, "The manager is away; try again, or ask from outside.")
            return
        if closed.code:
            await asker.end(_AWAY, closed.why or closed.code)
        else:
            await asker.end(closed.exit_code or 0)

    async def _once(self, call: AskCall, line: _Line, patience: asyncio.Timeout) -> Closed:
        """Relay one stream to its end."""
        try:
            stream = await self._open_stream(call)
        except StreamClosed as error:
            return error.closed
        async with stream:
            line.stream = stream
            async for item in stream:
                if isinstance(item, Data):
                    patience.reschedule(None)
                    await _show(item, line.asker)
            return stream.closed or Closed(stream.number, code=_LINK_LOST)


class _Line:
    """What comes of an asker after its question, on its way to the manager."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.stream: Stream | None = None
        self._input: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)

    async def hear(self) -> Never:
        """Take what comes, signals past the input that waits.

        Raises:
            _Gone: nobody is there any more.
            Malformed: it makes no sense.
        """
        async for frame in self.asker.frames():
            if self.stream is None:
                continue
            with contextlib.suppress(StreamClosed):  # whoever reads the stream tells its end
                match frame:
                    case Input(data=data):
                        await self._input.put(data)
                    case Signalled(number=number):
                        await self.stream.write(SIGNAL, bytes([number]))
                    case Resized(rows=rows, columns=columns):
                        await self.stream.resize(rows, columns)
        raise _Gone

    async def feed(self) -> Never:
        """Hand the input on as fast as it is taken."""
        while True:
            data = await self._input.get()
            if self.stream is None:
                continue
            with contextlib.suppress(StreamClosed):
                if data:
                    await self.stream.write(STDIN, data)
                    await self.asker.more()
                else:
                    await self.stream.eof()


async def _show(item: Data, asker: Asker) -> None:
    match item.channel:
        case channel if channel == BEGUN:
            await asker.begin(item.data[0] if item.data else 0)
        case channel if channel in (STDOUT, STDERR):
            await asker.output(item.data, error=channel == STDERR)
        case _:
            _LOG.warning("ask.unknown-channel", channel=item.channel)


def _call(kernel: KernelId, question: Question) -> AskCall:
    return AskCall(
        kernel,
        question.argv,
        question.cwd,
        question.environ,
        question.tty,
        question.rows,
        question.columns,
    )
