"""Commands beside the main one: run by the engine in a running container."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from aiodocker.execs import Exec
from aiodocker.stream import Stream

from phalanx_agent.docker.call import CALL_S, Line, checked_id, speaking
from phalanx_agent.docker.port import Unavailable

_CODE_WITHIN_S: Final = 5.0
_BEGINS_WITHIN_S: Final = 10.0
"""An engine that was told to start a command shows it soon, though who told it has died."""
_FREEZE_ROUNDS: Final = 20
_UNKNOWN: Final = 404
_CHILDREN_ARE_LISTED = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
"""Else all processes are looked at for those of one, which takes too long for thousands at once."""


class Execution:
    """One command; see `port.ExecSession`."""

    def __init__(self, line: Line, exec_id: str, what: str, *, tty: bool) -> None:
        self._line = line
        self._id = exec_id
        self._what = what
        self._exec = Exec(line.docker, exec_id, tty)
        self._stream: Stream = self._exec.start()

    async def begin(self) -> None:
        """Start it."""
        with speaking(self._what, "running a command"):
            async with asyncio.timeout(CALL_S):
                await self._stream._init()  # noqa: SLF001 - the library starts it at the first read

    async def read(self) -> tuple[int, bytes] | None:
        """Give the next chunk as (channel, data); None at the end."""
        with speaking(self._what, "running a command"):
            message = await self._stream.read_out()
        return None if message is None else (message.stream, message.data)

    async def write(self, data: bytes) -> None:
        """Send standard input; a command that has ended takes none."""
        with contextlib.suppress(ConnectionError, RuntimeError, AssertionError):
            await self._stream.write_in(data)

    async def eof(self) -> None:
        """End standard input; output goes on."""
        answer = self._stream._resp  # noqa: SLF001 - the library can only close both ways
        if answer is None or answer.connection is None:
            return
        transport = answer.connection.transport
        if transport is not None and transport.can_write_eof():
            transport.write_eof()

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the size of the terminal; too early or too late is no matter."""
        with contextlib.suppress(Unavailable):
            await self._line.ask(
                "POST",
                f"exec/{self._id}/resize",
                what=self._what,
                doing="resizing a terminal",
                params={"h": rows, "w": columns},
            )

    async def pid(self) -> int:
        """Give its first process as this host numbers it, as soon as there is one; 0 when it has
        ended.
        """
        deadline = asyncio.get_running_loop().time() + CALL_S
        wait = 0.002
        while True:
            seen = await self._look()
            if seen["Running"] and seen["Pid"]:
                return int(seen["Pid"])
            if seen["ExitCode"] is not None:
                return 0
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(self._what, "running a command", "It does not begin.")
            await asyncio.sleep(wait)
            wait = min(wait * 2, 0.2)

    async def exit_code(self) -> int:
        """Give the code; the engine notes it a moment after the output has ended."""
        deadline = asyncio.get_running_loop().time() + _CODE_WITHIN_S
        wait = 0.002
        while True:
            seen = await self._look()
            if not seen["Running"]:
                return int(seen["ExitCode"])
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(
                    self._what, "running a command", "It closed its output and runs on."
                )
            await asyncio.sleep(wait)
            wait = min(wait * 2, 0.2)

    async def kill(self) -> None:
        """End the command with all that it has started, and close the connection.

        Raises:
            Unavailable: it may run on.
        """
        try:
            await end(self._line, self._id, self._what)
        finally:
            with contextlib.suppress(AssertionError, OSError):
                await self._stream.close()

    async def _look(self) -> dict[str, Any]:
        return await _look(self._line, self._id, self._what)


async def run(  # noqa: PLR0913 - a command has so many parts
    line: Line,
    container_id: str,
    command: tuple[str, ...],
    *,
    tty: bool,
    stdin: bool,
    env: Mapping[str, str] | None = None,
    begins: Callable[[str], None] | None = None,
) -> Execution:
    """Start a command in a running container."""
    what = f"container {container_id[:12]}"
    made = await line.ask(
        "POST",
        f"containers/{checked_id(container_id)}/exec",
        what=what,
        doing="running a command",
        body={
            "AttachStdin": stdin,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": tty,
            "Cmd": list(command),
            "Env": [f"{name}={value}" for name, value in (env or {}).items()],
        },
    )
    exec_id = checked_id(made["Id"])
    if begins is not None:
        begins(exec_id)
    execution = Execution(line, exec_id, what, tty=tty)
    await execution.begin()
    return execution


async def end(line: Line, exec_id: str, what: str) -> None:
    """End a command with all that it has started, once it has begun; one that has ended, or that
    the engine does not know, is fine.

    Raises:
        Unavailable: it may run on.
    """
    deadline = asyncio.get_running_loop().time() + _BEGINS_WITHIN_S
    wait = 0.002
    while True:
        try:
            seen = await _look(line, checked_id(exec_id), what)
        except Unavailable as error:
            if error.status == _UNKNOWN:
                return
            raise
        if seen["Running"] and seen["Pid"]:
            _signal(_frozen_family(seen["Pid"]), signal.SIGKILL)
            return
        if seen["ExitCode"] is not None:
            return
        if asyncio.get_running_loop().time() > deadline:
            if not seen["Running"]:
                return  # nobody has ever asked for its start
            raise Unavailable(what, "ending a command", "It neither begins nor ends.")
        await asyncio.sleep(wait)
        wait = min(wait * 2, 0.2)


async def _look(line: Line, exec_id: str, what: str) -> dict[str, Any]:
    seen = await line.ask("GET", f"exec/{exec_id}/json", what=what, doing="looking at a command")
    return dict(seen)


def _frozen_family(pid: int) -> set[int]:
    """A process and all its descendants, stopped: what runs on could start another one, which
    nobody would find any more once its parent is dead.
    """
    frozen: set[int] = set()
    for _ in range(_FREEZE_ROUNDS):
        found = set(_family(pid)) - frozen
        if not found:
            break
        _signal(found, signal.SIGSTOP)
        frozen |= found
    return frozen


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _family(pid: int) -> list[int]:
    """A process and all its descendants, as this host numbers them."""
    children = _children if _CHILDREN_ARE_LISTED else _everybodys_children().__getitem__
    family = [pid]
    for member in family:
        family.extend(children(member))
    return family


def _children(pid: int) -> list[int]:
    """Whom a process has started, any of its threads; nobody where it has ended."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            path = f"/proc/{pid}/task/{thread}/children"
            with contextlib.suppress(OSError), open(path, encoding="ascii") as listed:
                children.extend(map(int, listed.read().split()))
    return children


def _everybodys_children() -> defaultdict[int, list[int]]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{entry.name}/stat", encoding="ascii", errors="replace") as stat:
                    parent = int(stat.read().rpartition(")")[2].split()[1])
                children[parent].append(int(entry.name))
    return children
