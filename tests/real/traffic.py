"""Where the containers of a lab have TCP connections to, seen from outside of them."""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from phalanx_lab import processes
from phalanx_lab.lab import Lab

SSH_PORT = 2200
LOOK_EVERY_S = 0.1
LISTENS, DIALS = "0A", "02"  # a socket's state in /proc/net; what is only dialled is no connection

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Traffic:
    """Looks, from `with` to its end, at every container's connections to other addresses.

    Attributes:
        pairs: two containers each, by host name, with a connection that is not ssh's.
        strangers: who was connected to what is not in the session's network.
    """

    def __init__(self, lab: Lab) -> None:
        self.pairs: set[tuple[str, str]] = set()
        self.strangers: set[tuple[str, str]] = set()
        self._cgroups = "|".join(re.escape(lab.plan.cgroup(host.index)) for host in lab.hosts)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        names: dict[str, str] = {}
        while not self._done.wait(LOOK_EVERY_S):
            inside = processes.in_cgroup(f"(?:{self._cgroups})")
            seen = {processes.network_of(pid): pid for pid in sorted(inside, reverse=True)}
            for pid in seen.values():
                self._look(pid, names)

    def _look(self, pid: int, names: dict[str, str]) -> None:
        try:
            env = environment(pid)
            found = [socket for table in ("tcp", "tcp6") for socket in sockets(pid, table)]
        except (FileNotFoundError, ProcessLookupError):
            return  # it has ended
        if "PHALANX_ADDRESS" not in env:
            return  # it is not a container's yet
        own, subnet = env["BACKENDAI_CLUSTER_HOST"], ipaddress.ip_network(env["PHALANX_SUBNET"])
        names[env["PHALANX_ADDRESS"]] = own
        for near, far, peer in found:
            if peer not in subnet:
                self.strangers.add((own, f"{peer}:{far}"))
            elif SSH_PORT not in (near, far) and names.get(str(peer), own) != own:
                first, second = sorted((own, names[str(peer)]))
                self.pairs.add((first, second))


def environment(pid: int) -> dict[str, str]:
    """What a process was started with."""
    text = Path(f"/proc/{pid}/environ").read_text("utf-8", "replace")
    return dict(entry.partition("=")[::2] for entry in text.split("\0") if entry)


def sockets(pid: int, table: str) -> Iterator[tuple[int, int, Address]]:
    """The connections of a process's network to other addresses: own port, far port, far address;
    also those that were closed within the last minute.
    """
    for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
        _, near, far, state, *_ = line.split()
        peer, _, far_port = far.partition(":")
        found = address(peer)
        if state not in (LISTENS, DIALS) and not (found.is_loopback or found.is_unspecified):
            yield int(near.partition(":")[2], 16), int(far_port, 16), found


def address(spelt: str) -> Address:
    """Read an address as the kernel spells it: words of 32 bits in the host's order."""
    words = [spelt[start : start + 8] for start in range(0, len(spelt), 8)]
    raw = b"".join(bytes.fromhex(word)[::-1] for word in words)
    if len(raw) == 4:
        return ipaddress.IPv4Address(raw)
    long = ipaddress.IPv6Address(raw)
    return long.ipv4_mapped or long
