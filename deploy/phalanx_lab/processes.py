"""Processes of a lab, found by what they cannot hide: their cgroup, namespace or command line.

Nothing is ever killed by name alone: other engines may run on the same machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator

ENGINE_PROGRAMS = frozenset({"dockerd", "containerd", "docker-proxy", "runc", "docker-init"})


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # it ended while we looked
        return b""


def state(pid: int) -> str:
    """The kernel's letter for a process: R S D T Z; empty when there is none."""
    text = _read(f"/proc/{pid}/stat")
    return chr(text[text.rindex(b")") + 2]) if text else ""


def alive(pid: int) -> bool:
    """Whether a process exists and is more than a zombie that nobody has reaped."""
    return state(pid) not in ("", "Z", "X")


def pids() -> Iterator[int]:
    """All processes of the machine."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            yield int(entry)


def command(pid: int) -> list[str]:
    """A process's argument list; empty for a kernel thread or one that ended."""
    text = _read(f"/proc/{pid}/cmdline")
    return [part.decode("utf-8", "replace") for part in text.split(b"\0")[:-1]]


def network_of(pid: int) -> int:
    """The inode of a process's network namespace; 0 when it cannot be read."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def is_engine_program(argv: list[str]) -> bool:
    """Whether a command line is an engine or one of its children."""
    program = os.path.basename(argv[0]) if argv else ""
    return program in ENGINE_PROGRAMS or program.startswith("containerd-shim")


def in_cgroup(pattern: str) -> set[int]:
    """Processes in, or below, a cgroup directory whose name matches, in any hierarchy."""
    wanted = re.compile(f"/{pattern}[/\n]")
    return {
        pid
        for pid in pids()
        if wanted.search(_read(f"/proc/{pid}/cgroup").decode("utf-8", "replace"))
    }


def kill_all(find: Callable[[], set[int]], *, within: float = 15) -> set[int]:
    """SIGKILL what `find` finds until it finds no more; what could not be killed in that time."""
    deadline = time.monotonic() + within
    while left := {pid for pid in find() if alive(pid)}:
        if time.monotonic() > deadline:
            return left
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return set()


def await_end(pid: int, *, within: float) -> bool:
    """Whether a process, not necessarily our child, ended in time."""
    deadline = time.monotonic() + within
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def orphans_to_reap(own: set[int]) -> list[int]:
    """Zombie children of this process that it did not start itself."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        for word in _read(f"/proc/self/task/{thread}/children").split():
            pid = int(word)
            if pid not in own and state(pid) == "Z":
                found.append(pid)
    return found
