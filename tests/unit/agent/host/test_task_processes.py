"""Marked processes of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from phalanx_agent.host.task_processes import (
    MARK,
    hold,
    kill_marked,
    marked,
    marks_beside,
)


@pytest.fixture
def mark() -> Iterator[str]:
    """A mark of this test alone; nothing of it is left."""
    name = f"test-{os.getpid()}-{os.urandom(4).hex()}"
    yield name
    kill_marked(name)


def started(mark: str, program: str) -> subprocess.Popen[str]:
    """Start a program that says a line when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {MARK: mark},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


async def test_a_held_process_hears_signals_and_its_end_is_noticed(mark: str) -> None:
    process = started(mark, "import signal; print(flush=True); signal.pause()")
    held = hold(process.pid)
    assert held is not None

    first = held.signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        await held.ended()
    code = process.wait()
    second = held.signal(signal.SIGTERM)
    held.close()

    assert (True, -signal.SIGTERM, False) == (first, code, second)


def test_a_process_that_has_ended_cannot_be_held() -> None:
    process = subprocess.Popen(["true"])
    process.wait()

    assert hold(process.pid) is None


HOGS = """
import os, subprocess, sys
from phalanx_agent.host import task_processes
task_processes.MOST_BYTES = 200_000
sleeps = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"]
for size in (120_000, 120_000, 120_000, 10):
    env = {"LARGE": "x" * size, task_processes.MARK: str(size)}
    process = subprocess.Popen(sleeps, env=env, stdout=subprocess.PIPE)
    process.stdout.readline()
print(*(mark for _pid, mark in task_processes._marks()))
for mark in ("10", "120000"):
    task_processes.kill_marked(mark)
"""


@pytest.mark.real
def test_large_environments_of_one_containers_processes_keep_nobody_waiting() -> None:
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable]
    done = subprocess.run(
        [*argv, "-c", HOGS], env={}, capture_output=True, text=True, timeout=60, check=False
    )

    assert ("10 120000\n", "") == (done.stdout, done.stderr)


async def test_children_that_have_lost_the_mark_and_orphans_that_kept_it_are_found(
    mark: str,
) -> None:
    clean = "subprocess.Popen(['sleep', '100'], env={})"
    orphan = "subprocess.Popen(['sh', '-c', 'sleep 100 & '], start_new_session=True).wait()"
    process = started(
        mark, f"import subprocess, time; {clean}; {orphan}; print(flush=True); time.sleep(100)"
    )

    with marked(mark) as found:
        kill_marked(mark)
        async with asyncio.timeout(10):
            await asyncio.gather(*(one.ended() for one in found))
        process.wait()
        with marked(mark) as left:
            assert (3, ()) == (len(found), left)


def test_marks_are_seen_in_the_same_container_only(mark: str) -> None:
    process = started(mark, "import time; print(flush=True); time.sleep(100)")

    assert mark in marks_beside(os.getpid())
    kill_marked(mark)
    process.wait()
    assert mark not in marks_beside(os.getpid())
