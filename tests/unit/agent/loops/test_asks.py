"""What containers ask: the real program, the agent's end, and a manager at the end of a mux."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path
from typing import IO

import pytest

from phalanx_agent.loops.asks import Asks
from phalanx_runner import ask
from phalanx_runner.build import SRC
from phalanx_wire.control import Message
from phalanx_wire.ids import KernelId
from phalanx_wire.mux import Mux, Stream, StreamClosed
from phalanx_wire.stream import (
    BEGUN,
    SIGNAL,
    STDERR,
    STDIN,
    STDOUT,
    AskCall,
    Closed,
    Data,
    Eof,
    Resize,
)

KERNEL = KernelId("aaaaaaaaaaaa-1-0")
PATIENCE_S = 20.0
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
HERE = ['-DASK_SOCKET="ask.sock"', "-DPATIENCE_MS=3000"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with sanitizers, under two names; its socket is in the working directory."""
    folder = tmp_path_factory.mktemp("ask")
    command = ["gcc", *FLAGS, *HERE, "-o", str(folder / "phalanx"), str(SRC / "ask" / "ask.c")]
    subprocess.run(command, check=True, timeout=60)
    (folder / "scontrol").symlink_to("phalanx")
    return folder


@dataclass
class Site:
    """A container's folder, its agent's asks, and the manager's end of the link."""

    folder: Path
    programs: Path
    patience_s: float
    asked: asyncio.Queue[Stream] = field(default_factory=asyncio.Queue)
    muxes: tuple[Mux, Mux] | None = None
    opened: int = 0

    def __post_init__(self) -> None:
        self.asks = Asks(self.open, self.patience_s)

    async def open(self, call: AskCall) -> Stream:
        self.opened += 1
        if self.muxes is None:
            raise StreamClosed(Closed(1, code="link_lost", why="The manager is not connected."))
        return await self.muxes[0].open(call)

    def link(self) -> None:
        async def up(message: Message) -> None:
            there.receive(message)

        async def down(message: Message) -> None:
            here.receive(message)

        here = Mux(up, 1, lambda _open, _stream: None)
        there = Mux(down, 0, lambda _open, stream: self.asked.put_nowait(stream))
        self.muxes = here, there
        self.asks.linked()

    def cut(self) -> None:
        assert self.muxes is not None
        for mux in self.muxes:
            mux.abort("the link was cut")
        self.muxes = None

    async def begin(
        self,
        *argv: str,
        env: dict[str, str] | None = None,
        stdin: int | IO[bytes] = asyncio.subprocess.DEVNULL,
        stdout: int | IO[bytes] = asyncio.subprocess.PIPE,
    ) -> asyncio.subprocess.Process:
        """Ask as a process of the container does."""
        name, *words = argv
        return await asyncio.create_subprocess_exec(
            self.programs / name,
            *words,
            cwd=self.folder,
            env={"ASAN_OPTIONS": "detect_leaks=1", **(env or {})},
            stdin=stdin,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
        )

    async def question(self) -> Stream:
        """The next stream at the manager."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.asked.get()


async def said(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    """How it ended, and what it wrote."""
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    return process.returncode or 0, (out or b"").decode(), err.decode()


async def answered(stream: Stream, text: str = "well\n", code: int = 0) -> None:
    await stream.write(STDOUT, text.encode())
    await stream.close(exit_code=code)


@asynccontextmanager
async def site(folder: Path, programs: Path, patience_s: float = 60.0) -> AsyncIterator[Site]:
    it = Site(folder, programs, patience_s)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(it.asks.run())
        await asyncio.sleep(0)
        it.link()
        yield it
        running.cancel()


@pytest.fixture
async def container(tmp_path: Path, programs: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, programs) as it:
        with it.asks.door(KERNEL, tmp_path):
            yield it


# ---------------------------------------------------------------- question and answer


async def test_the_manager_is_told_what_was_asked_where_and_with_what(container: Site) -> None:
    odd = {"GOOD": "a=b", "EMPTY": "", "ASAN_OPTIONS": "detect_leaks=1"}
    process = await container.begin("scontrol", "requeue", "ä b", "", env=odd)
    stream = await container.question()
    await stream.write(STDERR, b"hm\n")
    await answered(stream, code=7)

    expected = AskCall(KERNEL, ("scontrol", "requeue", "ä b", ""), str(container.folder), odd)
    assert expected == stream.call
    assert (7, "well\n", "hm\n") == await said(process)


async def test_a_long_answer_comes_whole(container: Site) -> None:
    process = await container.begin("phalanx", "show")
    stream = await container.question()
    text = "0123456789abcdef" * 40_000
    await answered(stream, text)
    code, out, err = await said(process)

    assert (0, text, "") == (code, out, err)


async def test_input_is_not_touched_before_the_manager_wants_it(container: Site) -> None:
    script = f"{container.programs}/phalanx show; cat"
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", script),
        cwd=container.folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"for the one after\n")
    process.stdin.close()
    await answered(await container.question())

    assert (0, "well\nfor the one after\n", "") == await said(process)


async def test_input_goes_to_what_has_begun_to_its_end(container: Site) -> None:
    text = os.urandom(300_000)
    process = await container.begin("phalanx", "x", stdin=asyncio.subprocess.PIPE)
    stream = await container.question()
    await stream.write(BEGUN, b"\0")
    sending = asyncio.ensure_future(process.communicate(text))
    got = bytearray()
    async with asyncio.timeout(PATIENCE_S):
        async for item in stream:
            if isinstance(item, Eof):
                break
            assert isinstance(item, Data)
            assert STDIN == item.channel
            got += item.data
        await stream.close(exit_code=0)
        await sending

    assert (text, 0) == (bytes(got), process.returncode)


async def test_a_signal_passes_input_that_nobody_takes(container: Site) -> None:
    process = await container.begin("phalanx", "x", stdin=asyncio.subprocess.PIPE)
    stream = await container.question()
    await stream.write(BEGUN, b"\0")
    await stream.write(STDOUT, b"begun\n")
    assert process.stdin is not None
    assert process.stdout is not None
    assert b"begun\n" == await process.stdout.readline()
    process.stdin.write(bytes(3 << 20))
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(PATIENCE_S):
        signals = [item async for item in until_signal(stream)]
    await stream.close(exit_code=130)
    process.stdin.transport.abort()
    code, _, _ = await said(process)

    assert [bytes([signal.SIGINT])] == signals
    assert 130 == code


async def until_signal(stream: Stream) -> AsyncIterator[bytes]:
    async for item in stream:
        if isinstance(item, Data) and item.channel == SIGNAL:
            yield item.data
            return


async def test_before_anything_has_begun_a_signal_does_what_it_always_does(
    container: Site,
) -> None:
    process = await container.begin("phalanx", "requeue")
    stream = await container.question()
    process.terminate()
    code, _, _ = await said(process)
    async with asyncio.timeout(PATIENCE_S):
        closed = await stream.ended()

    assert (-signal.SIGTERM, "cancelled") == (code, closed.code)


async def test_a_terminal_passes_every_key_and_its_size(container: Site) -> None:
    ours, theirs = pty.openpty()
    ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    usual = termios.tcgetattr(theirs)
    process = await container.begin("phalanx", "x", stdin=theirs, stdout=theirs)
    stream = await container.question()
    await stream.write(BEGUN, b"\1")
    await stream.write(STDOUT, b"ready")
    assert b"ready" == await asyncio.to_thread(os.read, ours, 100)
    os.write(ours, b"\x03")
    async with asyncio.timeout(PATIENCE_S):
        first = await anext(stream)
        ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        process.send_signal(signal.SIGWINCH)
        second = await anext(stream)
    await stream.close(exit_code=0)
    await said(process)
    after = termios.tcgetattr(theirs)
    os.close(ours)
    os.close(theirs)
    call = stream.call

    assert isinstance(call, AskCall)
    assert (True, 30, 100) == (call.tty, call.rows, call.columns)
    assert Data(stream.number, STDIN, b"\x03") == first
    assert Resize(stream.number, 40, 120) == second
    assert usual == after


# ---------------------------------------------------------------- somebody is away


async def test_what_was_told_nothing_is_asked_again_when_the_link_is_back(
    container: Site,
) -> None:
    process = await container.begin("phalanx", "requeue")
    await container.question()
    container.cut()
    container.link()
    await answered(await container.question())

    assert (0, "well\n", "") == await said(process)


async def test_what_has_begun_is_not_asked_twice(container: Site) -> None:
    process = await container.begin("phalanx", "x")
    stream = await container.question()
    await stream.write(BEGUN, b"\0")
    container.cut()
    container.link()

    assert (69, "", "the link was cut\n") == await said(process)
    assert 1 == container.opened


async def test_a_manager_that_stays_away_is_told_of(tmp_path: Path, programs: Path) -> None:
    async with site(tmp_path, programs, patience_s=0.05) as it:
        it.cut()
        with it.asks.door(KERNEL, tmp_path):
            code, out, err = await said(await it.begin("phalanx", "requeue"))

    assert (69, "") == (code, out)
    assert "The manager is away; try again" in err


async def test_a_problem_of_the_managers_is_told_of(container: Site) -> None:
    process = await container.begin("phalanx", "requeue")
    stream = await container.question()
    await stream.close(code="not_live", why="This container's session is over.")

    assert (69, "", "This container's session is over.\n") == await said(process)


async def test_an_agent_that_comes_back_in_time_is_waited_for(
    tmp_path: Path, programs: Path
) -> None:
    async with site(tmp_path, programs) as first:
        with first.asks.door(KERNEL, tmp_path):
            process = await first.begin("phalanx", "requeue")
            await first.question()
    async with site(tmp_path, programs) as second:
        with second.asks.door(KERNEL, tmp_path):
            await answered(await second.question())
            outcome = await said(process)

    assert (0, "well\n", "") == outcome


async def test_an_agent_that_went_away_in_the_middle_is_told_of(
    tmp_path: Path, programs: Path
) -> None:
    async with site(tmp_path, programs) as it:
        with it.asks.door(KERNEL, tmp_path):
            process = await it.begin("phalanx", "x")
            stream = await it.question()
            await stream.write(STDOUT, b"half\n")
            assert process.stdout is not None
            assert b"half\n" == await process.stdout.readline()
    code, _, err = await said(process)

    assert 69 == code
    assert "phalanx: this host's agent went away before the end" in err


async def test_an_agent_that_stays_away_is_told_of(tmp_path: Path, programs: Path) -> None:
    async with site(tmp_path, programs) as it:
        code, out, err = await said(await it.begin("scontrol", "requeue"))

    assert (69, "") == (code, out)
    assert "scontrol: this host's agent is away" in err


# ---------------------------------------------------------------- whoever means harm


def frame(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack("!cI", kind, len(content) if size is None else size) + content


SILLY = {
    "nothing": b"",
    "noise": os.urandom(100_000),
    "another language": b"GET / HTTP/1.1\r\n\r\n",
    "another kind": frame(b"i", b"x"),
    "a question without end": frame(b"a", b"1 1", 0xFFFFFFFF),
    "half of one": frame(b"a", b"1 1 0 24 80\0/\0", 500),
    "no numbers": frame(b"a", b"1 x\0/\0phalanx\0"),
    "another version": frame(b"a", b"2 1 0 24 80\0/\0phalanx\0"),
    "more words than there are": frame(b"a", b"1 9 0 24 80\0/\0phalanx\0"),
    "fewer than none": frame(b"a", b"1 -9 0 24 80\0/\0phalanx\0"),
    "bytes that are no text": frame(b"a", b"1 1 0 24 80\0/\0\xff\0"),
    "huge numbers": frame(b"a", b"1 " + b"9" * 5000 + b"\0/\0phalanx\0"),
}


@pytest.mark.parametrize("kind", SILLY)
async def test_nonsense_is_turned_away_and_hurts_nobody(container: Site, kind: str) -> None:
    reader, writer = await asyncio.open_unix_connection(container.folder / "ask.sock")
    writer.write(SILLY[kind])
    if SILLY[kind]:
        writer.write_eof()
    process = await container.begin("phalanx", "requeue")
    await answered(await container.question())
    outcome = await said(process)
    writer.close()

    assert (0, "well\n", "") == outcome
    assert 1 == container.opened
    assert len(await reader.read()) < 500


async def test_input_that_nobody_wants_ends_the_question(container: Site) -> None:
    reader, writer = await asyncio.open_unix_connection(container.folder / "ask.sock")
    writer.write(frame(b"a", b"1 1 0 24 80\0/\0phalanx\0") + frame(b"i", b"x" * 100))
    stream = await container.question()
    async with asyncio.timeout(PATIENCE_S):
        closed = await stream.ended()
        answer = await reader.read()
    writer.close()

    assert "cancelled" == closed.code
    assert answer.endswith(frame(b"x", b"\x40"))


async def test_too_large_an_environment_is_refused_with_the_reason(container: Site) -> None:
    large = {f"V{number}": "x" * 100_000 for number in range(6)}
    code, _, err = await said(await container.begin("phalanx", "requeue", env=large))

    assert 64 == code
    assert "524288 are the most" in err


async def test_whoever_knocks_without_asking_holds_few_descriptors_of_the_agent(
    container: Site,
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    lines = [await asyncio.open_unix_connection(container.folder / "ask.sock") for _ in range(60)]
    for _ in range(10):
        await asyncio.sleep(0)
    held = len(os.listdir("/proc/self/fd")) - before - len(lines)
    for _, writer in lines:
        writer.close()
        await writer.wait_closed()
    process = await container.begin("phalanx", "requeue")
    await answered(await container.question())

    assert held <= ask.QUESTIONS_AT_ONCE
    assert (0, "well\n", "") == await said(process)


async def test_too_many_questions_at_a_time_are_refused_with_the_reason(
    container: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_agent.loops.asks.AT_ONCE", 2)
    waiting = [await container.begin("phalanx", "x") for _ in range(2)]
    streams = [await container.question() for _ in waiting]
    code, _, err = await said(await container.begin("phalanx", "x"))
    for stream in streams:
        await answered(stream)
    for process in waiting:
        await said(process)

    assert 75 == code
    assert "2 commands of this container are under way" in err


async def test_a_reader_that_does_not_read_makes_only_its_own_answer_wait(
    container: Site,
) -> None:
    _, writer = await asyncio.open_unix_connection(container.folder / "ask.sock")
    writer.write(frame(b"a", b"1 1 0 24 80\0/\0phalanx\0"))
    stuck = await container.question()
    flood = asyncio.ensure_future(stuck.write(STDOUT, bytes(8 << 20)))
    process = await container.begin("phalanx", "show")
    await answered(await container.question())
    outcome = await said(process)
    finished = flood.done()
    writer.close()
    with pytest.raises(StreamClosed):
        await flood

    assert (0, "well\n", "") == outcome
    assert not finished
