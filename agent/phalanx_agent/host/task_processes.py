"""Processes of tasks in containers: found by a mark in their environment, held by descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

MARK: Final = "PHALANX_TASK"
"""The variable that tells a task's processes from all others, whoever their parents are."""

MOST_BYTES: Final = 32 << 20
"""Of the environments of one container's processes: reading them takes a fifth of a second."""

_ROUNDS: Final = 20


class HeldProcess:
    """A process that is meant whatever becomes of its number."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def signal(self, number: int) -> bool:
        """Send it a signal; False when it has ended."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return False
        return True

    async def ended(self) -> None:
        """Wait for its end."""
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        # A copy: one descriptor has room for one waiter only.
        own = os.dup(self._descriptor)
        loop.add_reader(own, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(own)
            os.close(own)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


def hold(pid: int) -> HeldProcess | None:
    """Hold a process; whose it is has to be asked after this. None when it has ended."""
    try:
        return HeldProcess(os.pidfd_open(pid))
    except ProcessLookupError:
        return None


@contextmanager
def marked(mark: str) -> Iterator[tuple[HeldProcess, ...]]:
    """Hold all processes that have a mark, and what these have started since without it."""
    held: list[HeldProcess] = []
    try:
        roots = [pid for pid, found in _marks() if found == mark]
        for pid, parent in _with_children(roots).items():
            process = hold(pid)
            if process is None:
                continue
            held.append(process)
            # Its number may have been given to another one before it was held.
            if _mark_of(pid) != mark and (parent is None or _parent(pid) != parent):
                held.pop().close()
        yield tuple(held)
    finally:
        for process in held:
            process.close()


def marks_beside(pid: int) -> frozenset[str]:
    """Tell which marks there are in the container whose first process this is."""
    space = _space(pid)
    return frozenset(
        mark for other, mark in _marks() if space is not None and _space(other) == space
    )


def kill_marked(mark: str) -> None:
    """Kill all that have a mark, stopped first: what runs on could start another one meanwhile."""
    frozen = 0
    for _ in range(_ROUNDS):
        with marked(mark) as found:
            if len(found) == frozen:
                _signal(found, signal.SIGKILL)
                return
            _signal(found, signal.SIGSTOP)
            frozen = len(found)
    with marked(mark) as found:
        _signal(found, signal.SIGKILL)


def _signal(processes: Iterable[HeldProcess], number: int) -> None:
    for process in processes:
        process.signal(number)


def _with_children(roots: list[int]) -> dict[int, int | None]:
    """Add whom processes have started, each with its parent; None is a root's."""
    children: dict[int, list[int]] = {}
    for pid in _numbers() if roots else ():
        parent = _parent(pid)
        if parent is not None:
            children.setdefault(parent, []).append(pid)
    family: dict[int, int | None] = dict.fromkeys(roots)
    members = list(roots)
    for member in members:
        for child in children.get(member, ()):
            if child not in family:
                family[child] = member
                members.append(child)
    return family


def _marks() -> Iterator[tuple[int, str]]:
    """Read the marks of all processes, the youngest first. Of one container's, which may have
    thousands with megabytes each, no more is read than the agent has the time for.
    """
    left: dict[str | None, int] = {}
    for pid in sorted(_numbers(), reverse=True):
        space = _space(pid)
        room = left.setdefault(space, MOST_BYTES)
        environ = _environ(pid, room)
        left[space] -= len(environ)
        mark = _mark_in(environ)
        if mark is not None:
            yield pid, mark


def _numbers() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            yield int(name)


def _mark_of(pid: int) -> str | None:
    return _mark_in(_environ(pid, MOST_BYTES))


def _environ(pid: int, most: int) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        return file.read(most)
    return b""


def _mark_in(environ: bytes) -> str | None:
    for entry in environ.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == MARK.encode():
            return value.decode(errors="replace")
    return None


def _parent(pid: int) -> int | None:
    """Tell who its parent is; None when it has ended, or is another thing than a process."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
        return None if state in "ZX" else int(parent)
    return None


def _space(pid: int) -> str | None:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return None
