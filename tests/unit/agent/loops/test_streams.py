"""What the manager asks bytes of, over two muxes joined by a queue."""

from __future__ import annotations

import asyncio
import errno
import socket
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from phalanx_agent.host.inside import ProcessGone
from phalanx_agent.loops.streams import Streams
from phalanx_wire import loglines
from phalanx_wire.api import LogLine
from phalanx_wire.control import Message
from phalanx_wire.ids import KernelId
from phalanx_wire.lifecycle import KernelState as S
from phalanx_wire.mux import Mux, Stream
from phalanx_wire.stream import (
    STDERR,
    STDIN,
    STDOUT,
    WINDOW_BYTES,
    Call,
    Data,
    ExecCall,
    LogsCall,
    Open,
    ReadCall,
    SignalCall,
    UploadCall,
    WriteCall,
)
from tests.support.agent_life import MAIN1, Life, assignment, living
from tests.support.execs import FakeNotes, execs_of
from tests.support.fake_engine import FakeExec, refusal
from tests.support.fake_host import FakeHost

TEMPORARY = Path(tempfile.gettempdir())
STRANGE = KernelId("zzzzzzzzzzzz-1-0")
LINES = [LogLine(number, stderr=False, text=f"line {number}") for number in range(1, 6)]


class Kept:
    """Output of containers that are gone."""

    def __init__(self) -> None:
        self.texts: dict[KernelId, list[LogLine]] = {}

    def has(self, kernel: KernelId) -> bool:
        return kernel in self.texts

    def lines(
        self, kernel: KernelId, *, since_ns: int = 0, tail: int = -1
    ) -> Iterator[Iterator[LogLine]]:
        lines = [line for line in self.texts[kernel] if line.at_ns > since_ns]
        return iter([iter(lines if tail < 0 else lines[-tail:])])


class OwnNetwork:
    """A container's network that is this process's, while it lives."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.alive = True
        self.made: list[socket.socket] = []

    @contextmanager
    def of(self, pid: int) -> Iterator[OwnNetwork]:
        if self.host.engine.of(MAIN1).pid != pid:
            raise ProcessGone
        yield self

    def still_lives(self) -> bool:
        return self.alive

    def tcp_socket(self) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        self.made.append(made)
        return made


class Desk:
    """The manager's end."""

    def __init__(self, life: Life, host: FakeHost, folder: Path = TEMPORARY) -> None:
        self.life, self.host = life, host
        self.kept = Kept()
        self.notes = FakeNotes()
        self.network = OwnNetwork(host)
        self.streams = Streams(
            host.engine,
            life.fleet,
            self.kept,
            self.network.of,
            execs_of(host.engine, self.notes),
            folder,
        )
        self._there = Mux(self._to_agent, 0, _nobody)
        self._here = Mux(self._to_manager, 1, self.streams.opened)

    async def _to_agent(self, message: Message) -> None:
        self._here.receive(message)

    async def _to_manager(self, message: Message) -> None:
        self._there.receive(message)

    async def ask(self, call: Call) -> Stream:
        return await self._there.open(call)

    async def answer(self, call: Call) -> tuple[bytes, Stream]:
        stream = await self.ask(call)
        async with asyncio.timeout(5):
            data = b"".join([item.data async for item in stream if isinstance(item, Data)])
        return data, stream

    async def refusal(self, call: Call) -> str:
        _, stream = await self.answer(call)
        assert stream.closed is not None
        return stream.closed.code


def _nobody(message: Open, stream: Stream) -> None:
    raise AssertionError(message, stream)


@asynccontextmanager
async def desk(
    host: FakeHost, goal: S | None = S.RUNNING, folder: Path = TEMPORARY
) -> AsyncIterator[Desk]:
    async with living(host) as life:
        if goal is not None:
            await life.reach(goal)
        made = Desk(life, host, folder)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(made.streams.run())
            try:
                yield made
            finally:
                running.cancel()


async def test_a_command_is_run_and_its_code_told(host: FakeHost) -> None:
    host.engine.execs.append(FakeExec(deque([(STDOUT, b"out"), (STDERR, b"err")]), code=4))
    async with desk(host) as manager:
        data, stream = await manager.answer(ExecCall(MAIN1, ("ls",)))

        assert (b"outerr", 4) == (data, stream.closed.exit_code if stream.closed else None)
        assert [("ls",)] == host.engine.executed


async def test_a_shell_is_the_runners(host: FakeHost) -> None:
    host.engine.execs.append(FakeExec(deque()))
    async with desk(host) as manager:
        await manager.answer(ExecCall(MAIN1, (), shell=True, tty=True, rows=5, columns=7))  # noqa: S604 - no subprocess

        assert [("/opt/phalanx/bin/phalanx-shell",)] == host.engine.executed


async def test_input_goes_in_and_its_end_too(host: FakeHost) -> None:
    host.engine.execs.append(FakeExec(deque(), endless=True))
    async with desk(host) as manager:
        stream = await manager.ask(ExecCall(MAIN1, ("cat",), stdin=True))
        await stream.write(STDIN, b"hello")
        await stream.resize(10, 20)
        await stream.eof()
        data = b"".join([item.data async for item in stream if isinstance(item, Data)])

        assert b"hello" == data


async def test_a_caller_that_leaves_ends_its_command(host: FakeHost) -> None:
    execution = FakeExec(deque(), endless=True)
    host.engine.execs.append(execution)
    async with desk(host) as manager:
        stream = await manager.ask(ExecCall(MAIN1, ("cat",), stdin=True))
        await manager.life.settle()
        await stream.close()
        await manager.life.until(lambda: execution.killed)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (ExecCall(STRANGE, ("ls",)), "not_running"),
        (ReadCall(STRANGE, "/x"), "no_container"),
        (ReadCall(MAIN1, "/nosuch"), "not_found"),
        (LogsCall(STRANGE), "output_gone"),
        (SignalCall(MAIN1, 99), "bad_signal"),
        (UploadCall("sha256:1"), "bad_call"),
    ],
)
async def test_what_cannot_be_served_is_refused_with_a_code(
    host: FakeHost, call: Call, code: str
) -> None:
    async with desk(host) as manager:
        assert code == await manager.refusal(call)


async def test_a_command_needs_a_running_container(host: FakeHost) -> None:
    async with desk(host, S.CREATED) as manager:
        assert "not_running" == await manager.refusal(ExecCall(MAIN1, ("ls",)))


async def test_output_is_read_from_the_engine_while_it_has_it(host: FakeHost) -> None:
    async with desk(host) as manager:
        host.engine.output[host.engine.of(MAIN1).id] = LINES
        data, _ = await manager.answer(LogsCall(MAIN1, since_ns=1, tail=2))

        assert LINES[-2:] == loglines.unpack(data)


async def test_output_is_read_from_what_was_kept_afterwards(host: FakeHost) -> None:
    async with desk(host, None) as manager:
        manager.kept.texts[MAIN1] = LINES
        data, _ = await manager.answer(LogsCall(MAIN1, follow=True))

        assert LINES == loglines.unpack(data)


@pytest.mark.parametrize("status", [404, 409])
async def test_that_a_container_is_removed_while_its_output_is_read_is_told(
    host: FakeHost, status: int
) -> None:
    async with desk(host) as manager:
        host.engine.failures["logs"].append(refusal(status))

        assert "not_found" == await manager.refusal(LogsCall(MAIN1))


async def test_a_follower_waits_for_the_container(host: FakeHost) -> None:
    async with desk(host, S.CREATED) as manager:
        stream = await manager.ask(LogsCall(MAIN1, follow=True))
        await manager.life.settle()
        assert "logs" not in host.engine.calls
        host.engine.output[host.engine.of(MAIN1).id] = LINES[:1]
        await manager.life.reach(S.RUNNING)
        item = await anext(aiter(stream))

        assert isinstance(item, Data)
        assert LINES[:1] == loglines.unpack(item.data)
        await stream.close()


async def test_a_follower_of_a_kernel_that_never_ran_is_let_go(host: FakeHost) -> None:
    async with desk(host, S.CREATED) as manager:
        stream = await manager.ask(LogsCall(MAIN1, follow=True))
        await manager.life.aim(assignment(S.STOPPED))
        data = [item async for item in stream]

        assert [] == data
        assert stream.closed is not None
        assert "" == stream.closed.code


async def test_files_go_out_and_in(host: FakeHost) -> None:
    host.engine.files["/x"] = b"tar"
    async with desk(host) as manager:
        assert b"tar" == (await manager.answer(ReadCall(MAIN1, "/x")))[0]
        stream = await manager.ask(WriteCall(MAIN1, "/y"))
        await stream.write(STDIN, b"ar")
        await stream.write(STDIN, b"chive")
        await stream.eof()
        await manager.life.until(lambda: stream.closed)

        assert b"archive" == host.engine.files["/y"]


async def test_half_an_archive_is_not_taken_for_a_whole_one(host: FakeHost) -> None:
    async with desk(host) as manager:
        stream = await manager.ask(WriteCall(MAIN1, "/y"))
        await stream.write(STDIN, b"ar")
        await manager.life.settle()
        await stream.close()
        await manager.life.settle()

        assert "/y" not in host.engine.files


async def test_an_engine_does_not_wait_for_whoever_takes_an_archive_slowly(
    host: FakeHost,
) -> None:
    host.engine.files["/x"] = b"x" * (3 * WINDOW_BYTES)
    async with desk(host) as manager:
        stream = await manager.ask(ReadCall(MAIN1, "/x"))
        async with asyncio.timeout(5):
            while "/x" not in host.engine.given:  # noqa: ASYNC110 - a disk rings no bell
                await asyncio.sleep(0)
        taken = [item.data async for item in stream if isinstance(item, Data)]

    assert host.engine.files["/x"] == b"".join(taken)


async def test_an_engine_does_not_wait_for_whoever_sends_an_archive_slowly(host: FakeHost) -> None:
    async with desk(host) as manager:
        stream = await manager.ask(WriteCall(MAIN1, "/y"))
        await stream.write(STDIN, b"ar")
        await manager.life.settle()
        before = list(host.engine.calls)
        await stream.write(STDIN, b"chive")
        await stream.eof()
        async with asyncio.timeout(5):
            await stream.ended()

        assert "write_archive" not in before
        assert b"archive" == host.engine.files["/y"]


async def test_a_disk_that_fails_is_named(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    host.engine.files["/x"] = b"archive"
    async with desk(host) as manager:
        monkeypatch.setattr("phalanx_agent.host.spool.os.pwrite", full)
        assert "unavailable" == await manager.refusal(ReadCall(MAIN1, "/x"))


async def test_a_signal_goes_through_the_runner(host: FakeHost) -> None:
    async with desk(host) as manager:
        assert "" == await manager.refusal(SignalCall(MAIN1, 10))

        assert b'{"op":"signal","signal":10}\n' in host.runner(MAIN1).commands


async def test_a_signal_goes_through_the_engine_without_a_runner(host: FakeHost) -> None:
    async with desk(host) as manager:
        host.runner(MAIN1).connected = False
        await manager.refusal(SignalCall(MAIN1, 10))

        assert [(host.engine.of(MAIN1).id, "SIGUSR1")] == host.engine.signals


async def test_a_signal_without_a_name_is_one_too(host: FakeHost) -> None:
    async with desk(host) as manager:
        host.runner(MAIN1).connected = False

        assert "" == await manager.refusal(SignalCall(MAIN1, 35))

        assert [(host.engine.of(MAIN1).id, "35")] == host.engine.signals


async def test_a_caller_may_ask_before_the_agent_is_up(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        early = Desk(life, host)
        stream = await early.ask(SignalCall(MAIN1, 10))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(early.streams.run())
            await life.until(lambda: stream.closed)
            running.cancel()
