"""The real program that containers ask by, the agent's end, and a manager at the end of a mux."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from phalanx_agent.loops.asks import Asks
from phalanx_runner.build import SRC
from phalanx_wire.control import Message
from phalanx_wire.ids import KernelId
from phalanx_wire.mux import Mux, Stream, StreamClosed
from phalanx_wire.stream import (
    STDOUT,
    AskCall,
    Closed,
)

KERNEL = KernelId("aaaaaaaaaaaa-1-0")
PATIENCE_S = 20.0
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
HERE = ['-DASK_SOCKET="ask.sock"', "-DPATIENCE_MS=3000"]


def built(folder: Path) -> Path:
    """The program with sanitizers, under two names; its socket is in the working directory."""
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
