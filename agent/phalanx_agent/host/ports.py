"""The ports of this host that containers on its network get: kept from others as far as can be."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from phalanx_agent.config import PortRange
from phalanx_agent.core.refused import Refused

_SETTINGS: Final = Path("/proc/sys/net/ipv4")
_LISTENS: Final = "0A"
_MOST_HANDLES: Final = 100_000
"""That are looked at to find a holder: a container's processes may have a million each."""


def keep(wanted: PortRange, settings: Path = _SETTINGS) -> str:
    """Keep ports from being given to whoever connects outwards from any port.

    Returns:
        Why they can't be kept, as a sentence; empty when they are.
    """
    first, last = (settings / "ip_local_port_range").read_text(encoding="ascii").split()
    if not wanted.overlaps(PortRange(int(first), int(last))):
        return ""
    reserved = settings / "ip_local_reserved_ports"
    try:
        before = reserved.read_text(encoding="ascii").strip()
        if any(part.covers(wanted) for part in _parts(before)):
            return ""
        reserved.write_text(f"{before},{wanted}" if before else str(wanted), encoding="ascii")
    except OSError as error:
        return (
            f"host_ports {wanted} lie among those that this host gives to outgoing connections "
            f"({first}-{last}), and they can't be reserved: {error.strerror}; set another range, "
            f"or add them to net.ipv4.ip_local_reserved_ports."
        )
    return ""


def _parts(text: str) -> Iterator[PortRange]:
    """Read the kernel's list: `8080,9000-9010`."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first:
            yield PortRange(int(first), int(last or first))


def check(ports: tuple[int, ...], kept: PortRange | None) -> None:
    """Try whether a container could listen on ports of this host; `kept` is its own range.

    Raises:
        Refused: somebody has one; the sentence says who, as far as it can be seen.
    """
    for port in ports:
        if _is_free(port):
            continue
        who = holder(port) or "somebody who cannot be seen from here"
        if kept is not None and port in kept:
            advice = f"it is one of host_ports {kept}, which must be left to containers"
        else:
            advice = "choose another with --master-port"
        raise Refused(f"Port {port} of the host is taken by {who}; {advice}.")


def _is_free(port: int) -> bool:
    """Try it as the runner does: by IPv6 and IPv4 at once where there is IPv6."""
    try:
        _listen(socket.AF_INET6, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
    else:
        return True
    try:
        _listen(socket.AF_INET, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True


def _listen(family: socket.AddressFamily, port: int) -> None:
    """Listen for a moment; a connection that is just ending holds nothing."""
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        trial.bind(("", port))
        trial.listen(1)


def holder(port: int) -> str:
    """Find who holds a port of this network: `python3 (pid 812)`; empty where it can't be seen."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    left = _MOST_HANDLES
    for pid in filter(str.isdigit, os.listdir("/proc")):
        handles = f"/proc/{pid}/fd"
        with contextlib.suppress(OSError):  # it has ended, or is none of ours to look at
            numbers = os.listdir(handles)[: max(0, left)]
            left -= len(numbers)
            if any(os.readlink(f"{handles}/{number}") in sockets for number in numbers):
                name = Path("/proc", pid, "comm").read_text(encoding="utf-8", errors="replace")
                return f"{name.strip()} (pid {pid})"
    return ""


def _inodes(port: int) -> list[str]:
    """List the sockets bound to a port: those that listen, or else all."""
    listening: list[str] = []
    others: list[str] = []
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):  # a kernel without IPv6
            for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port:
                    (listening if fields[3] == _LISTENS else others).append(fields[9])
    return listening or others
