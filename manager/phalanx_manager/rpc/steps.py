"""Runs steps: each task through the agent of its container, all as one for whoever asked."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import structlog

from phalanx_manager.core import folders
from phalanx_manager.core.lines import Lines
from phalanx_manager.core.model import Kernel, Refusal, SessionRow
from phalanx_manager.core.step import Plan, Task, plan
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.shares import Shares
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.mux import Stream, StreamClosed
from phalanx_wire.step import StepSpec
from phalanx_wire.stream import (
    SIGNAL,
    STDERR,
    STDIN,
    STDOUT,
    Call,
    Closed,
    Data,
    Eof,
    ExecCall,
    Resize,
)

OPEN_S: Final = 20.0
ENDING_S: Final = 5.0
"""Between TERM and KILL of the tasks of a step that is ended."""
KILLED_S: Final = 15.0
ABANDONED_CODE: Final = 128 + signal.SIGKILL
AT_ONCE: Final = 1024
"""Of one user: as much input may wait in each as in a stream."""
_KEPT: Final = 10_000

OpenStream = Callable[[AgentId, Call], AbstractAsyncContextManager[Stream]]

log = structlog.get_logger(__name__)


class Asker(Protocol):
    """Who asked for a step; a stream to an agent is one."""

    def __aiter__(self) -> AsyncIterator[Data | Eof | Resize]:
        """Read input, its end, sizes and signals; it ends when the asker is gone."""
        ...

    async def write(self, channel: int, data: bytes) -> None:
        """Show output, waiting for room; raise `StreamClosed` when the asker is gone."""
        ...


class Steps:
    """All steps of all sessions. Nothing of them is kept: agents end the tasks of streams that are
    gone, so they end when this process does.
    """

    def __init__(self, shares: Shares) -> None:
        """Args: shares: the streams of a session's steps are its user's."""
        self._shares = shares
        self._running: Counter[str] = Counter()
        self._numbers: dict[SessionId, tuple[int, int]] = {}

    async def run(
        self, row: SessionRow, spec: StepSpec, asker: Asker, asked_in: int | None = None
    ) -> int | Refusal:
        """Run a step to its end; its code is the highest of its tasks'. When the asker goes away,
        or this is cancelled, all tasks are ended.

        Args:
            row: of the session, fresh.
            asked_in: rank of the container that it was asked for in; None is from outside.
        """
        user = row.session.user
        if self._running[user] >= AT_ONCE:
            title = f"{AT_ONCE} steps of {user} are under way"
            return Refusal("too_many_requests", 429, title, hint="wait until some have ended")
        found = plan(row, spec, self._number(row), asked_in)
        if isinstance(found, Refusal):
            return found
        log.info("step.begun", session=row.session.id, step=found.number, tasks=len(found.tasks))
        warnings = folders.unshared(row) if found.number == 0 else ()
        self._running[user] += 1
        try:
            running = _Running(partial(self._shares.open, user), found, spec, asker)
            code = await running.through(warnings)
        finally:
            self._running[user] -= 1
            self._running += Counter()  # forgets those without any
        log.info("step.ended", session=row.session.id, step=found.number, code=code)
        return code

    def _number(self, row: SessionRow) -> int:
        """Count a session's steps, those of each attempt from 0."""
        attempt, number = self._numbers.pop(row.session.id, (0, 0))
        if attempt != row.session.attempt:
            number = 0
        if len(self._numbers) >= _KEPT:
            del self._numbers[next(iter(self._numbers))]
        self._numbers[row.session.id] = (row.session.attempt, number + 1)
        return number


@dataclass(frozen=True, slots=True)
class _Part:
    """A task that runs. `lines` hold back what its channels have not ended."""

    task: Task
    stream: Stream
    lines: dict[int, Lines]


class _Running:
    """One step on its way."""

    def __init__(self, open_stream: OpenStream, plan: Plan, spec: StepSpec, asker: Asker) -> None:
        self._open_stream = open_stream
        self._plan = plan
        self._spec = spec
        self._asker = asker
        self._stack = contextlib.AsyncExitStack()
        self._parts: list[_Part] = []
        self._files: dict[str, Stream] = {}
        self._showing = asyncio.Lock()
        self._first_end = asyncio.Event()
        self._called_off = asyncio.Event()
        self._code = 0

    async def through(self, warnings: Sequence[str] = ()) -> int:
        """Start all tasks, relay until they have ended, and give the step's code."""
        try:
            for text in warnings:
                await self._asker.write(STDERR, f"srun: warning: {text}\n".encode())
            async with self._stack, asyncio.TaskGroup() as tasks:
                if await self._started():
                    watching = (self._listen(), self._end(), self._limit(), self._wait())
                    beside = [tasks.create_task(one) for one in watching]
                    await self._relay()
                    for task in beside:
                        task.cancel()
        except* StreamClosed:
            self._code = self._code or ABANDONED_CODE  # the asker is gone
        return self._code

    async def _started(self) -> bool:
        why: list[str] = []
        try:
            async with asyncio.timeout(OPEN_S):
                await self._open()
        except* Unavailable as group:
            why += [str(error) for error in group.exceptions]
        except* TimeoutError:
            why.append("an agent does not answer")
        if why:
            await self._say(f"the step cannot begin: {'; '.join(why)}")
            self._code = 1
        return not why

    async def _open(self) -> None:
        """Open the files that tasks share, then all tasks at once."""
        for path, (kernel, call) in self._plan.writers.items():
            self._files[path] = await self._stream(kernel, call)
        async with asyncio.TaskGroup() as tasks:
            opening = [
                tasks.create_task(self._stream(task.kernel, task.call)) for task in self._plan.tasks
            ]
        self._parts = [
            _Part(task, one.result(), self._labels(task))
            for task, one in zip(self._plan.tasks, opening, strict=True)
        ]

    async def _stream(self, kernel: Kernel, call: ExecCall) -> Stream:
        assert kernel.agent is not None  # noqa: S101 - it runs
        return await self._stack.enter_async_context(self._open_stream(kernel.agent, call))

    def _labels(self, task: Task) -> dict[int, Lines]:
        """Hold lines back until they are whole; who is alone, or in a hurry, is not held."""
        spec, many = self._spec, len(self._plan.tasks)
        if not spec.label and (spec.unbuffered or many == 1):
            return {}
        label = f"{task.number:>{len(str(many - 1))}}: ".encode() if spec.label else b""
        return {STDOUT: Lines(label), STDERR: Lines(label)}

    # -------------------------------------------------------------- from the asker

    async def _listen(self) -> None:
        """Hand on what the asker sends.

        Raises:
            StreamClosed: the asker is gone.
        """
        async for item in self._asker:
            for part in self._parts:
                with contextlib.suppress(StreamClosed):  # that task has ended
                    await _hand(item, part)
        raise StreamClosed(Closed(0, code="cancelled", why="the asker is gone"))

    # -------------------------------------------------------------- to the asker

    async def _relay(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            writing = [tasks.create_task(self._follow_file(*one)) for one in self._files.items()]
            async with asyncio.TaskGroup() as following:
                for part in self._parts:
                    following.create_task(self._follow(part))
            for stream in self._files.values():
                with contextlib.suppress(StreamClosed):
                    await stream.eof()
            await asyncio.gather(*writing)

    async def _follow(self, part: _Part) -> None:
        async for item in part.stream:
            if isinstance(item, Data):
                held = part.lines.get(item.channel)
                await self._show(part, item.channel, held.take(item.data) if held else item.data)
        for channel, held in part.lines.items():
            await self._show(part, channel, held.rest())
        said, code = _end_of(part.stream.closed)
        self._first_end.set()
        if not said:
            return
        self._code = max(self._code, code)
        if not self._called_off.is_set():
            await self._say(f"{part.task.kernel.host_name}: task {part.task.number}: {said}")
        if self._spec.kill_on_bad_exit or part.stream.closed is None or part.stream.closed.code:
            self._called_off.set()

    async def _show(self, part: _Part, channel: int, data: bytes) -> None:
        path = part.task.shared.get(channel)
        if not data:
            return
        if path is None:
            async with self._showing:
                await self._asker.write(channel, data)
            return
        with contextlib.suppress(StreamClosed):  # it cannot be written; its end says why
            await self._files[path].write(STDIN, data)

    async def _follow_file(self, path: str, stream: Stream) -> None:
        async for item in stream:
            if isinstance(item, Data):
                await self._asker.write(STDERR, item.data)
        said, code = _end_of(stream.closed)
        if said:
            await self._say(f"{path} cannot be written: {said}")
            self._code = max(self._code, code)

    async def _say(self, text: str) -> None:
        async with self._showing:
            await self._asker.write(STDERR, f"srun: error: {text}\n".encode())

    # -------------------------------------------------------------- ends before the tasks' own

    async def _limit(self) -> None:
        if self._spec.limit_s is not None:
            await asyncio.sleep(self._spec.limit_s)
            await self._call_off("its time limit is over")

    async def _wait(self) -> None:
        if self._spec.wait_s > 0:
            await self._first_end.wait()
            await asyncio.sleep(self._spec.wait_s)
            await self._call_off(f"{self._spec.wait_s:g} s have passed since its first task ended")

    async def _call_off(self, why: str) -> None:
        await self._say(f"the step is ended: {why}")
        self._called_off.set()

    async def _end(self) -> None:
        """Once it is called off, end all tasks; one that cannot be ended is left to its agent."""
        await self._called_off.wait()
        for number, patience_s in ((signal.SIGTERM, ENDING_S), (signal.SIGKILL, KILLED_S)):
            for part in self._parts:
                with contextlib.suppress(StreamClosed):
                    await part.stream.write(SIGNAL, bytes([number]))
            await asyncio.sleep(patience_s)
        for part in self._parts:
            await part.stream.close(code="unavailable", why="it does not end")


async def _hand(item: Data | Eof | Resize, part: _Part) -> None:
    match item:
        case Data(channel=channel, data=data) if channel == SIGNAL or part.task.call.stdin:
            await part.stream.write(channel, data)
        case Eof() if part.task.call.stdin:
            await part.stream.eof()
        case Resize(rows=rows, columns=columns):
            await part.stream.resize(rows, columns)
        case _:
            return


def _end_of(closed: Closed | None) -> tuple[str, int]:
    """Say how a task has ended, and with what code; nothing where all went well."""
    if closed is None or closed.code or closed.exit_code is None:
        return (closed.why or closed.code if closed is not None else "") or "it is lost", 1
    code = closed.exit_code
    if code > 128 and signal.strsignal(code - 128):
        return f"{signal.strsignal(code - 128)}", code
    return (f"Exited with exit code {code}" if code else ""), code
