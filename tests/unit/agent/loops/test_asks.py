"""What containers ask, and who is away meanwhile: the real program, and both ends of a link."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator
from fcntl import ioctl
from pathlib import Path

from phalanx_wire.mux import Stream
from phalanx_wire.stream import (
    BEGUN,
    SIGNAL,
    STDERR,
    STDIN,
    STDOUT,
    AskCall,
    Data,
    Eof,
    Resize,
)
from tests.unit.agent.loops.asking import KERNEL, PATIENCE_S, Site, answered, said, site

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
