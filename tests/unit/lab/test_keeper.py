from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from phalanx_lab import keeper
from phalanx_lab.keeper import Keeper, Program


async def test_a_program_that_ends_is_started_again_after_its_preparation(tmp_path: Path) -> None:
    again = asyncio.Event()
    prepared: list[str] = []
    program = Program(
        "x", lambda: ["false"], f"{tmp_path}/log", before=lambda: prepared.append("cleared")
    )
    kept = Keeper(program, lambda: again.set() if kept.state.restarts >= 1 else None)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(kept.keep())
        await again.wait()
        await kept.stop()

    assert (kept.state.last_exit, kept.state.pid) == (1, 0)
    assert prepared[0] == "cleared"


async def test_a_stopped_program_ends_by_its_signal_and_stays_away(tmp_path: Path) -> None:
    started = asyncio.Event()
    program = Program("x", lambda: ["sleep", "1000"], f"{tmp_path}/log")
    kept = Keeper(program, lambda: started.set() if kept.state.pid else None)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(kept.keep())
        await started.wait()
        await kept.stop()

    assert (kept.state.last_exit, kept.state.restarts) == (-signal.SIGTERM, 0)


DEAF = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(os.environ["READY"], "w").close()
signal.pause()
"""


async def test_a_program_deaf_to_sigterm_is_killed_when_its_grace_is_over(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    program = Program(
        "x",
        lambda: [sys.executable, "-c", DEAF],
        f"{tmp_path}/log",
        env={"READY": str(ready)},
        grace=0.05,
    )
    kept = Keeper(program, lambda: None)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(kept.keep())
        await asyncio.to_thread(ready.read_bytes)  # a pipe: it returns when the child is deaf
        await kept.stop()

    assert kept.state.last_exit == -signal.SIGKILL


def test_a_long_log_is_moved_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("ab") as writer:
        writer.write(b"0123456789")
        writer.flush()
        assert keeper.rotate(str(log), limit=10)
        writer.write(b"next")

    assert log.read_bytes() == b"next"
    assert (tmp_path / "x.log.1").read_bytes() == b"0123456789"
    assert not keeper.rotate(str(log), limit=10)


async def test_a_program_that_is_killed_comes_back_as_fast_each_time(tmp_path: Path) -> None:
    third = asyncio.Event()
    program = Program("x", lambda: ["sh", "-c", "kill -9 $$"], f"{tmp_path}/log")
    kept = Keeper(program, lambda: third.set() if kept.state.restarts >= 3 else None)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    kept._sleep = sleep  # type: ignore[method-assign]
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(kept.keep())
        await third.wait()
        await kept.stop()

    assert {keeper.FIRST_PAUSE} == set(slept)
