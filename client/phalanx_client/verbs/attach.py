"""`phalanx exec`: a command in a container."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import ExitStack
from typing import BinaryIO, TextIO

from phalanx_client import ansi, output, terminal
from phalanx_client.aio import AioTransport
from phalanx_client.arguments import Parser
from phalanx_client.call import Call, Verb
from phalanx_client.either import leading
from phalanx_client.failure import OK, USAGE, Failure
from phalanx_client.session import Client
from phalanx_client.target import find, parse
from phalanx_client.websocket import STDERR, Process, Wish, execute
from phalanx_wire.api import KernelView, SessionView

AT_ONCE = 32
"""Commands of `exec --all` that run at the same time."""


def declare_exec(parser: Parser) -> None:
    """Options of `exec`."""
    parser.add_argument("session", metavar="SESSION[/RANK]")
    parser.add_argument("--all", action="store_true", help="in every container of the session")
    parser.add_argument("-i", "--stdin", action="store_true", help="pass standard input on")
    parser.add_argument("-t", "--tty", action="store_true", help="on a terminal of its own")


async def run_exec(call: Call) -> int:
    """Run a command in one container, or in all."""
    given = call.options
    if not given.command:
        raise Failure("name a command: phalanx exec SESSION -- CMD", USAGE)
    if given.command[0].startswith("-"):
        raise Failure(
            f"{given.command[0]} stands where the command begins; options come before SESSION, or "
            "write -- before the command",
            USAGE,
        )
    if given.all and (given.stdin or given.tty):
        raise Failure("--all has no input and no terminal; leave -i and -t out", USAGE)
    if given.tty and not sys.stdout.isatty():
        raise Failure("-t needs a terminal; leave it out in a pipe", USAGE)
    async with AioTransport(await leading(call.manager()), call.away) as transport:
        view, kernel = await find(Client(transport), parse(given.session))
        if given.all:
            return await _in_all(transport, view, given.command)
        size = terminal.size() if given.tty else None
        wish = Wish(kernel.rank, given.command, stdin=given.stdin, size=size)
        return await _attached(transport, view.id, wish)


async def _attached(transport: AioTransport, ref: str, wish: Wish) -> int:
    """Connect a command with our own input and output until it ends; its exit code."""
    keyboard = terminal.Keyboard()
    async with execute(transport, ref, wish) as process:
        with ExitStack() as undo:
            if wish.size is not None:
                undo.enter_context(terminal.raw())
            async with asyncio.TaskGroup() as tasks:
                feeders = [tasks.create_task(process.feed(keyboard.pieces()))] if wish.stdin else []
                if wish.size is not None:
                    feeders.append(tasks.create_task(_follow_size(process)))
                async for channel, data in process.output():
                    _write(sys.stderr.buffer if channel == STDERR else sys.stdout.buffer, data)
                keyboard.stop()
                for feeder in feeders:
                    feeder.cancel()
    assert process.exit_code is not None  # noqa: S101 - the output ends with it
    return process.exit_code


async def _follow_size(process: Process) -> None:
    """Pass on what the window's signal tells, for as long as this runs."""
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while await changed.wait():
            changed.clear()
            await process.resize(*terminal.size())
    except ConnectionResetError:
        return
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


def _write(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
    stream.flush()


async def _in_all(transport: AioTransport, view: SessionView, command: list[str]) -> int:
    """Run in every container; the first exit code in rank order that is not 0."""
    width = max(len(f"{kernel.rank} {kernel.host_name}") for kernel in view.kernels) + 3
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(kernel: KernelView) -> int:
        async with gate, execute(transport, view.id, Wish(kernel.rank, command)) as process:
            lines = {False: Lines(kernel, width), True: Lines(kernel, width)}
            async for channel, data in process.output():
                lines[channel == STDERR].feed(data, sys.stderr if channel == STDERR else sys.stdout)
            lines[False].finish(sys.stdout)
            lines[True].finish(sys.stderr)
            assert process.exit_code is not None  # noqa: S101 - the output ends with it
            return process.exit_code

    codes = await asyncio.gather(*(one(kernel) for kernel in view.kernels), return_exceptions=True)
    worst = OK
    for kernel, code in zip(view.kernels, codes, strict=True):
        if isinstance(code, Failure):
            output.note(f"phalanx: {kernel.host_name}: {code}")
            worst = worst or code.exit_code
        elif isinstance(code, BaseException):
            raise code
        else:
            worst = worst or code
    return worst


class Lines:
    """Output of one container, cut into lines that say whose they are."""

    def __init__(self, kernel: KernelView, width: int) -> None:
        self._kernel = kernel
        self._width = width
        self._rest = b""

    def feed(self, data: bytes, stream: TextIO) -> None:
        """Print the lines that are complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._print(line, stream)

    def finish(self, stream: TextIO) -> None:
        """Print what has no newline."""
        if self._rest:
            self._print(self._rest, stream)

    def _print(self, line: bytes, stream: TextIO) -> None:
        name = f"[{self._kernel.rank} {self._kernel.host_name}]"
        coloured = output.coloured(stream)
        text = line.decode("utf-8", "replace")
        shown = ansi.painted(name, self._kernel.rank) if coloured else name
        safe = ansi.colours_only(text) if coloured else text
        output.to(stream, f"{shown}{' ' * (self._width - len(name))}{safe}")


VERBS = {
    "exec": Verb(
        "exec [--all] [-it] SESSION[/RANK] -- CMD", declare_exec, run_exec, "dashes", loop=True
    ),
}
