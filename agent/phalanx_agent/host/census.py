"""Reads what processes and sockets a container has out of the host's /proc: nothing runs in the
container for it, and what its processes say of themselves is bounded and made printable.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from phalanx_wire import names
from phalanx_wire.look import (
    MAX_PROCESSES,
    MAX_SOCKETS,
    MAX_TEXT,
    RENDEZVOUS,
    Process,
    Socket,
    SocketState,
)

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_FRESH_S: Final = 0.1
_MAX_DESCRIPTORS: Final = 16_384
_MAX_TABLE_BYTES: Final = 4 << 20
_MAX_ENVIRON_BYTES: Final = 256 << 10
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_STATES: Final[Mapping[str, SocketState]] = {"0A": "listen", "02": "connecting", "01": "connected"}
_ORDER: Final = ("listen", "connecting", "connected")


@dataclass(frozen=True, slots=True)
class Numbers:
    """What of a process changes while one looks.

    Attributes:
        state: of Linux, one letter.
        parent: by the host's number.
        cpu_s, started_s: the latter after the boot.
    """

    state: str
    parent: int
    threads: int
    cpu_s: float
    started_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a container; `pids` are the host's numbers of `processes`, in their order."""

    processes: tuple[Process, ...]
    pids: tuple[int, ...]
    sockets: tuple[Socket, ...]
    more: bool


class Census:
    """Reads containers. Many that are looked at together share one walk over all processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._walked_s = -1.0
        self._spaces: dict[str, list[int]] = {}

    def read(self, pid: int, *, own_only: bool) -> Seen:
        """Look at the container whose first process this is; it may have ended: then there is
        nothing.

        Args:
            own_only: only sockets that its processes have open: its network is the host's.
        """
        members = self._members(pid)
        found = list(_processes(members[:MAX_PROCESSES]))
        inside = {number: process.pid for number, process in found}
        owners, all_seen = _owners(inside)
        sockets = [one for one in _sockets(pid, owners) if one.pid or not own_only]
        sockets.sort(key=lambda one: _ORDER.index(one.state))
        more = len(members) > MAX_PROCESSES or len(sockets) > MAX_SOCKETS or not all_seen
        return Seen(
            tuple(process for _, process in found),
            tuple(number for number, _ in found),
            tuple(sockets[:MAX_SOCKETS]),
            more,
        )

    def _members(self, pid: int) -> list[int]:
        """Tell who shares the process's numbers, by the host's, lowest first."""
        with self._lock:
            if time.monotonic() - self._walked_s > _FRESH_S:
                self._spaces = _walk()
                self._walked_s = time.monotonic()
            space = _link(pid, "ns/pid")
            return sorted(self._spaces.get(space, ())) if space else []


def again(seen: Seen, after_s: float) -> tuple[Process, ...]:
    """Read what changes once more, so many seconds later: what goes on and what stands still.

    A process is in D or T only when it was so both times: all are for a moment.
    """
    return tuple(
        _compared(process, numbers(pid), after_s)
        for process, pid in zip(seen.processes, seen.pids, strict=True)
    )


def _compared(process: Process, later: Numbers | None, after_s: float) -> Process:
    if later is None:
        return process
    used_s = max(0.0, later.cpu_s - process.cpu_s)
    state = later.state if process.state == "D" else process.state
    return Process(
        pid=process.pid,
        parent=process.parent,
        command=process.command,
        state=state,
        threads=process.threads,
        cpu_s=later.cpu_s,
        age_s=process.age_s,
        cores=round(used_s / after_s, 2) if after_s > 0 else 0.0,
        waits=process.waits,
        ours=process.ours,
        variables=process.variables,
    )


def numbers(pid: int) -> Numbers | None:
    """Read what /proc/PID/stat says; None when there is no such process any more."""
    text = _text(pid, "stat")
    # The name is in brackets and may itself hold any of them.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20:
        return None
    return Numbers(
        state=fields[0],
        parent=int(fields[1]),
        threads=int(fields[17]),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        started_s=int(fields[19]) / _TICKS_PER_S,
    )


def sockets_of(lines: Iterable[str], owners: Mapping[str, int]) -> Iterator[Socket]:
    """Read a table as /proc/net/tcp and tcp6 are: who listens, connects and is connected.

    Args:
        owners: processes by the inode of a socket.
    """
    for line in lines:
        fields = line.split()
        state = _STATES.get(fields[3]) if len(fields) > 9 else None
        if state is None:
            continue
        local, local_port = _endpoint(fields[1])
        remote, remote_port = _endpoint(fields[2]) if state != "listen" else ("", 0)
        yield Socket(state, local, local_port, remote, remote_port, owners.get(fields[9], 0))


def _endpoint(text: str) -> tuple[str, int]:
    """Read `0100007F:1F90`: each four bytes of the address are in the machine's order."""
    digits, _, port = text.partition(":")
    words = [bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8)]
    raw = b"".join(words)
    if len(raw) == 4:
        return str(IPv4Address(raw)), int(port, 16)
    address = IPv6Address(raw)
    return str(address.ipv4_mapped or address), int(port, 16)


# ---------------------------------------------------------------- processes


def _walk() -> dict[str, list[int]]:
    """Sort all processes by their space of numbers."""
    spaces: dict[str, list[int]] = {}
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() and (space := _link(int(entry.name), "ns/pid")):
                spaces.setdefault(space, []).append(int(entry.name))
    return spaces


def _processes(pids: Iterable[int]) -> Iterator[tuple[int, Process]]:
    """Read each that is still there, with the host's number."""
    up_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    inside: dict[int, int] = {}
    for pid in pids:
        found = numbers(pid)
        own = _number_inside(pid)
        if found is None or not own:
            continue
        inside[pid] = own
        exe = _link(pid, "exe")
        process = Process(
            pid=own,
            parent=inside.get(found.parent, 0),
            command=_command(pid),
            state=found.state,
            threads=found.threads,
            cpu_s=found.cpu_s,
            age_s=round(max(0.0, up_s - found.started_s), 1),
            waits=_waits(pid),
            ours=own == 1 or exe.startswith(f"{names.BUNDLE_MOUNT}/"),
            variables=_variables(pid),
        )
        yield pid, process


def _number_inside(pid: int) -> int:
    """Tell a process's number in its own space, 0 when it is gone."""
    for line in _text(pid, "status").splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return 0


def _command(pid: int) -> str:
    words = _text(pid, "cmdline", 4096).rstrip("\0").replace("\0", " ")
    return _printable(words) or f"[{_printable(_text(pid, 'comm').strip())}]"


def _waits(pid: int) -> str:
    """Tell the kernel's function that a process sleeps in; `0` is none, or not for us."""
    text = _printable(_text(pid, "wchan").strip())
    return "" if text == "0" else text


def _variables(pid: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in _text(pid, "environ", _MAX_ENVIRON_BYTES).split("\0"):
        name, _, value = entry.partition("=")
        if name in RENDEZVOUS:
            found.setdefault(name, _printable(value))
    return found


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_TEXT])


# ---------------------------------------------------------------- sockets


def _owners(inside: Mapping[int, int]) -> tuple[dict[str, int], bool]:
    """Tell who has which socket open, and whether all descriptors could be gone through."""
    owners: dict[str, int] = {}
    left = _MAX_DESCRIPTORS
    for pid, own in inside.items():
        try:
            entries = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # it has ended, or may not be looked at
        for name in entries[:left]:
            match = _SOCKET.fullmatch(_link(pid, f"fd/{name}"))
            if match:
                owners.setdefault(match[1], own)
        left -= len(entries)
        if left <= 0:
            return owners, False
    return owners, True


def _sockets(pid: int, owners: Mapping[str, int]) -> Iterator[Socket]:
    for table in ("net/tcp", "net/tcp6"):
        yield from sockets_of(_text(pid, table, _MAX_TABLE_BYTES).splitlines()[1:], owners)


# ---------------------------------------------------------------- /proc


def _text(pid: int, name: str, limit: int = 64 << 10) -> str:
    """Read a file of a process, or as much; empty when it or the right to read it is not there."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""
