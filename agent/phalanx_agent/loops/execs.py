"""Serves commands beside the main one: plain ones, and tasks of steps."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import Final

from phalanx_agent.docker.port import Docker, ExecSession
from phalanx_agent.host.task_processes import MARK
from phalanx_agent.loops.alongside import alongside
from phalanx_agent.loops.commands import Command, Commands
from phalanx_agent.loops.refusal import Refusal
from phalanx_agent.loops.tasks import Task, Tasks
from phalanx_wire import names
from phalanx_wire.ids import KernelId
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.stream import SIGNAL, Closed, Data, Eof, ExecCall, Resize

KILLED_CODE: Final = 128 + signal.SIGKILL
_SHELL: Final = (f"{names.BUNDLE_MOUNT}/bin/phalanx-shell",)


class Execs:
    """All commands that the manager asks for on this host."""

    def __init__(self, docker: Docker, commands: Commands, tasks: Tasks | None = None) -> None:
        """Args: tasks: of this host's containers; None is a host that runs none."""
        self._docker = docker
        self._commands = commands
        self._tasks = tasks

    async def clear(self) -> None:
        """End what commands and tasks of an agent that has died here have left; for ever."""
        async with asyncio.TaskGroup() as clearing:
            clearing.create_task(self._commands.clear())
            if self._tasks is not None:
                clearing.create_task(self._tasks.clear())

    def signal_tasks(self, kernel: KernelId, number: int) -> None:
        """Send all tasks of a kernel a signal."""
        if self._tasks is not None:
            self._tasks.signal(kernel, number)

    async def serve(self, call: ExecCall, container_id: str, stream: Stream) -> None:
        """Run what a call asks for, to its end.

        Raises:
            Refusal: it cannot be run, or was cut off.
            StreamClosed: the caller has left.
            Unavailable: the engine fails.
        """
        if call.task and self._tasks is not None:
            await self._task(call, container_id, stream, self._tasks)
        else:
            await self._plain(call, container_id, stream)

    async def _plain(self, call: ExecCall, container_id: str, stream: Stream) -> None:
        command = Command(
            _SHELL if call.shell else call.command, call.tty, call.stdin or call.tty, call.env
        )
        async with self._commands.run(container_id, command, partial(_wanted, stream)) as session:
            if call.tty:
                await session.resize(call.rows, call.columns)
            await alongside(_show(session, stream), _feed(session, stream))
            code = await session.exit_code()
        await stream.close(exit_code=code)

    async def _task(self, call: ExecCall, container_id: str, stream: Stream, tasks: Tasks) -> None:
        """Run a command as a task: it hears signals, and leaves nothing behind."""

        async def start(mark: str) -> ExecSession:
            command = Command(
                call.command, call.tty, call.stdin or call.tty, call.env | {MARK: mark}
            )
            session = await self._commands.begin(container_id, command, partial(_wanted, stream))
            if call.tty:
                await session.resize(call.rows, call.columns)
            return session

        async with tasks.task(call.kernel, start) as (task, session):
            await alongside(
                _show(session, stream), _feed(session, stream, task), task.follow(session)
            )
            code = await session.exit_code()
            if code == KILLED_CODE and not await self._runs(container_id):
                raise Refusal("container_ended", "its container has ended")
        await stream.close(exit_code=code)

    async def _runs(self, container_id: str) -> bool:
        facts = await self._docker.inspect(container_id)
        return facts is not None and facts.status == "running"


def _wanted(stream: Stream) -> None:
    """Raise `StreamClosed` when the caller has left."""
    if stream.closed is not None:
        raise StreamClosed(stream.closed)


async def _show(session: ExecSession, stream: Stream) -> None:
    while (chunk := await session.read()) is not None:
        await stream.write(*chunk)


async def _feed(session: ExecSession, stream: Stream, task: Task | None = None) -> None:
    """Hand the caller's input on, and a task its signals, for as long as there is a caller.

    Raises:
        StreamClosed: the caller has left.
    """
    async for item in stream:
        match item:
            case Data(channel=channel, data=data) if channel == SIGNAL:
                for number in set(data) & signal.valid_signals():
                    if task is not None:
                        task.signal(number)
            case Data(data=data):
                await session.write(data)
            case Eof():
                await session.eof()
            case Resize(rows=rows, columns=columns):
                await session.resize(rows, columns)
    raise StreamClosed(stream.closed or Closed(stream.number))
