"""Keeping one process running, as an init system would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from phalanx_lab.status import Component

log = structlog.get_logger()

FIRST_PAUSE, LONGEST_PAUSE, STEADY_AFTER = 0.2, 5.0, 10.0
LOG_LIMIT = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Program:
    """What to keep running.

    `before` runs ahead of every start; `argv` is asked anew each time. `grace` is how many
    seconds it may take to end when asked to.
    """

    name: str
    argv: Callable[[], list[str]]
    log: str
    before: Callable[[], None] = lambda: None
    env: Mapping[str, str] = field(default_factory=dict)
    pass_fds: tuple[int, ...] = ()
    grace: float = 10


class Keeper:
    """Runs a program until told to stop; each exit is followed by a pause, which grows where it
    ends by itself again and again.
    """

    def __init__(self, program: Program, tell: Callable[[], None]) -> None:
        self.program = program
        self.state = Component()
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def keep(self) -> None:
        """Start, await the end, start again; returns after `stop`."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            await self._run_once()
            if time.monotonic() - began > STEADY_AFTER or self.state.last_exit == -signal.SIGKILL:
                pause = FIRST_PAUSE
            if self._stopping.is_set():
                return
            self.state.restarts += 1
            self._tell()
            await self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _run_once(self) -> None:
        await asyncio.to_thread(self.program.before)
        with open(self.program.log, "ab") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *self.program.argv(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=os.environ | dict(self.program.env),
                pass_fds=self.program.pass_fds,
                start_new_session=True,
            )
        self.state.pid = self._process.pid
        log.info("lab.component.started", component=self.program.name, pid=self.state.pid)
        self._tell()
        code = await self._process.wait()
        self.state.pid, self.state.last_exit = 0, code
        log.info("lab.component.ended", component=self.program.name, code=code)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def let_end(self) -> None:
        """Not start the program again when it ends."""
        self._stopping.set()

    async def stop(self) -> None:
        """End the program: SIGTERM, then SIGKILL when its grace is over."""
        self.let_end()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a frozen one would not hear the first
        try:
            async with asyncio.timeout(self.program.grace):
                await process.wait()
        except TimeoutError:
            log.warning("lab.component.killed", component=self.program.name)
            self._signal(signal.SIGKILL)
            await process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """Past asyncio's own way, which may reap the process and lose its exit code."""
        if self.state.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.state.pid, number)


def rotate(path: str, limit: int = LOG_LIMIT) -> bool:
    """Move a log's content aside once it is too long; its writer appends and never notices."""
    try:
        if os.path.getsize(path) < limit:
            return False
        with open(path, "rb") as full, open(f"{path}.1", "wb") as old:
            while block := full.read(2**20):
                old.write(block)
        os.truncate(path, 0)
    except FileNotFoundError:
        return False
    return True
