"""Steps: all tasks as one, and nothing of them left when the asker goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from phalanx_manager.core.model import Refusal, SessionRow
from phalanx_manager.rpc import steps
from phalanx_manager.rpc.failure import Unavailable
from phalanx_manager.rpc.shares import Shares
from phalanx_manager.rpc.steps import ABANDONED_CODE, Steps
from phalanx_wire.control import Message
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Mux, Stream, StreamClosed
from phalanx_wire.spec import Mount
from phalanx_wire.step import StepSpec
from phalanx_wire.stream import (
    SIGNAL,
    STDERR,
    STDIN,
    STDOUT,
    WINDOW_BYTES,
    Call,
    Closed,
    Data,
    Eof,
    ExecCall,
    Resize,
)
from tests.support.house import row, with_kernel

Play = Callable[[ExecCall, Stream], Awaitable[None]]


@dataclass
class Stage:
    """Agents whose tasks are played by a function; those in `away` are not there."""

    tasks: asyncio.TaskGroup
    play: Play
    away: set[str] = field(default_factory=set)
    calls: list[ExecCall] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    async def open(self, agent: AgentId, call: Call, window: int = WINDOW_BYTES) -> Stream:
        if agent in self.away:
            raise Unavailable(f"agent {agent}", "it is not connected")
        assert isinstance(call, ExecCall)
        self.calls.append(call)

        async def down(message: Message) -> None:
            theirs.receive(message)

        async def up(message: Message) -> None:
            ours.receive(message)

        def opened(_open: Message, stream: Stream) -> None:
            self.tasks.create_task(self._played(call, stream))

        ours = Mux(down, 0, lambda _open, _stream: None)
        theirs = Mux(up, 1, opened)
        return await ours.open(call, window)

    async def _played(self, call: ExecCall, stream: Stream) -> None:
        with contextlib.suppress(StreamClosed):
            await self.play(call, stream)
        closed = await stream.ended()
        self.ends.append(closed.code)


class Asker:
    """Says what it is given, then waits until it goes."""

    def __init__(self, *words: Data | Eof | Resize) -> None:
        self.words = words
        self.gone = asyncio.Event()
        self.more = asyncio.Event()
        self.heard: list[tuple[int, bytes]] = []

    async def __aiter__(self) -> AsyncIterator[Data | Eof | Resize]:
        for word in self.words:
            yield word
        await self.gone.wait()

    async def write(self, channel: int, data: bytes) -> None:
        if self.gone.is_set():
            raise StreamClosed(Closed(0))
        self.heard.append((channel, data))
        self.more.set()

    async def heard_so_many(self, count: int) -> None:
        while len(self.heard) < count:
            self.more.clear()
            await self.more.wait()

    @property
    def out(self) -> list[str]:
        said = b"".join(data for channel, data in self.heard if channel == STDOUT)
        return sorted(said.decode().splitlines())

    @property
    def err(self) -> list[str]:
        said = b"".join(data for channel, data in self.heard if channel == STDERR)
        return sorted(said.decode().splitlines())


def two(**fields: Any) -> SessionRow:
    return row("ab", KernelState.RUNNING, env_profile="slurm", run_on="main", **fields)


async def ran(
    play: Play, spec: StepSpec, asker: Asker, *, away: set[str] | None = None
) -> tuple[int | Refusal, Stage]:
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        stage = Stage(tasks, play, away or set())
        code = await Steps(Shares(stage)).run(two(), spec, asker, 0)
    return code, stage


def number(call: ExecCall) -> int:
    return int(call.env["SLURM_PROCID"])


async def lines_in_pieces(call: ExecCall, stream: Stream) -> None:
    for piece in (f"{number(call)} be", "gins\n", "and ends"):
        await stream.write(STDOUT, piece.encode())
        await asyncio.sleep(0)
    await stream.close(exit_code=0)


async def test_lines_of_different_tasks_do_not_run_into_each_other() -> None:
    asker = Asker()

    code, _ = await ran(lines_in_pieces, StepSpec(("p",), label=True), asker)

    assert 0 == code
    assert all(data.startswith((b"0: ", b"1: ")) for _, data in asker.heard)
    assert sorted(["0: 0 begins\n", "1: 1 begins\n", "0: and ends", "1: and ends"]) == sorted(
        data.decode() for _, data in asker.heard
    )


async def by_number(call: ExecCall, stream: Stream) -> None:
    await stream.close(exit_code=3 * number(call))


async def test_the_steps_code_is_the_highest_of_its_tasks_and_it_says_whose() -> None:
    asker = Asker()

    code, _ = await ran(by_number, StepSpec(("p",)), asker)

    assert 3 == code
    assert ["srun: error: sub1: task 1: Exited with exit code 3"] == asker.err


async def test_a_user_may_not_run_steps_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "AT_ONCE", 1)
    asker = Asker()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        stage = Stage(tasks, until_closed)
        all_steps = Steps(Shares(stage))
        first = tasks.create_task(all_steps.run(two(), StepSpec(("p",)), asker))
        await asker.heard_so_many(1)
        second = await all_steps.run(two(), StepSpec(("p",)), Asker())
        first.cancel()
        await asyncio.wait([first])
        stage.play = by_number
        third = await all_steps.run(two(), StepSpec(("p",)), Asker())

    assert isinstance(second, Refusal)
    assert (429, "1 steps of ada are under way") == (second.status, second.title)
    assert 3 == third


async def test_what_hosts_do_not_share_is_said_with_a_jobs_first_step() -> None:
    mount = Mount("/srv/ckpt", "/ckpt", read_only=False)
    job = two(requeue=True, mounts=(mount,))
    job = with_kernel(with_kernel(job, 0, folders={"/ckpt": "x"}), 1, folders={"/ckpt": "y"})
    first, second = Asker(), Asker()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        steps = Steps(Shares(Stage(tasks, by_number)))
        for asker in (first, second):
            await steps.run(job, StepSpec(("p",), tasks=1), asker, 0)

    assert [True, False] == [
        any(
            line.startswith("srun: warning: folder /ckpt is not shared: a and b")
            for line in one.err
        )
        for one in (first, second)
    ]


async def echo(_call: ExecCall, stream: Stream) -> None:
    async for item in stream:
        match item:
            case Data(channel=channel, data=data) if channel == STDIN:
                await stream.write(STDOUT, data)
            case Data(data=data):
                await stream.write(STDOUT, b"signal %d\n" % data[0])
                break
            case Eof():
                await stream.write(STDOUT, b"eof\n")
            case _:
                continue
    await stream.close(exit_code=0)


async def test_input_its_end_and_signals_go_to_all_tasks() -> None:
    asker = Asker(Data(0, STDIN, b"hi\n"), Eof(0), Data(0, SIGNAL, bytes([10])))

    await ran(echo, StepSpec(("p",)), asker)

    assert ["eof", "eof", "hi", "hi", "signal 10", "signal 10"] == asker.out


async def test_input_may_be_for_one_task_and_signals_are_for_all() -> None:
    asker = Asker(Data(0, STDIN, b"hi\n"), Eof(0), Data(0, SIGNAL, bytes([10])))

    await ran(echo, StepSpec(("p",), stdin="1"), asker)

    assert ["eof", "hi", "signal 10", "signal 10"] == asker.out


async def until_closed(_call: ExecCall, stream: Stream) -> None:
    await stream.write(STDOUT, b"up\n")
    await stream.ended()


async def test_when_the_asker_goes_all_tasks_are_ended() -> None:
    asker = Asker()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        stage = Stage(tasks, until_closed)
        step = tasks.create_task(Steps(Shares(stage)).run(two(), StepSpec(("p",)), asker))
        await asker.heard_so_many(2)
        asker.gone.set()
        code = await step

    assert ABANDONED_CODE == code
    assert ["cancelled", "cancelled"] == stage.ends


async def test_a_step_that_an_agent_cannot_begin_ends_the_others() -> None:
    asker = Asker()

    code, stage = await ran(until_closed, StepSpec(("p",)), asker, away={"b"})

    assert 1 == code
    assert ["cancelled"] == stage.ends
    assert ["srun: error: the step cannot begin: agent b: it is not connected"] == [
        line for line in asker.err if line
    ]


async def lost_or_ended(call: ExecCall, stream: Stream) -> None:
    if number(call) == 0:
        await stream.close(code="container_ended", why="its container has ended")
        return
    async for item in stream:
        if isinstance(item, Data) and item.channel == SIGNAL:
            await stream.close(exit_code=128 + item.data[0])


async def test_a_container_that_ends_is_named_and_ends_the_step() -> None:
    asker = Asker()

    code, _ = await ran(lost_or_ended, StepSpec(("p",)), asker)

    assert 143 == code
    assert ["srun: error: main1: task 0: its container has ended"] == asker.err


async def failing_or_staying(call: ExecCall, stream: Stream) -> None:
    if number(call) == 0:
        await stream.close(exit_code=2)
        return
    async for item in stream:
        if isinstance(item, Data) and item.data == bytes([9]):
            await stream.close(exit_code=137)


async def test_a_task_that_fails_may_end_the_others_first_gently_then_surely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steps, "ENDING_S", 0.01)
    asker = Asker()

    code, _ = await ran(failing_or_staying, StepSpec(("p",), kill_on_bad_exit=True), asker)

    assert 137 == code
    assert ["srun: error: main1: task 0: Exited with exit code 2"] == asker.err


async def test_tasks_share_a_file_that_is_written_where_the_step_was_asked_for() -> None:
    async def play(call: ExecCall, stream: Stream) -> None:
        if "SLURM_PROCID" in call.env:
            await stream.write(STDOUT, b"from %d\n" % number(call))
            await stream.close(exit_code=0)
            return
        async for item in stream:
            if isinstance(item, Data):
                written.append(item.data)
            else:
                break
        await stream.close(exit_code=0)

    written: list[bytes] = []
    asker = Asker()

    code, stage = await ran(play, StepSpec(("p",), stdout_file="both-%j", label=True), asker)

    assert 0 == code
    assert [] == asker.heard
    assert [b"0: from 0\n", b"1: from 1\n"] == sorted(written)
    assert "both-0" == stage.calls[0].command[3]


async def test_steps_of_an_attempt_are_counted() -> None:
    numbers = []

    async def play(call: ExecCall, stream: Stream) -> None:
        numbers.append(call.env["SLURM_STEP_ID"])
        await stream.close(exit_code=0)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        all_steps = Steps(Shares(Stage(tasks, play)))
        for _ in range(2):
            await all_steps.run(two(), StepSpec(("p",), tasks=1), Asker())

    assert ["0", "1"] == numbers
