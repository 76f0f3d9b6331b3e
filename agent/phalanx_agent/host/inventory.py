"""What a host has: cores, memory, devices, addresses, and what its limits allow."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import re
import resource
import socket
import struct
from pathlib import Path
from typing import Final

from phalanx_wire.control import Gpu

_NOFILE: Final = 1 << 20
_OWN_INTERFACES: Final = "phx"
_OF_CONTAINERS: Final = ("lo", "phx", "docker", "br-", "veth")
_ROUTE_UP: Final = 0x1
_SIOCGIFADDR: Final = 0x8915


def boot_id() -> str:
    """Tell this start of the machine from the others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def cpu_milli() -> int:
    """Count the cores that this process may use, in thousandths."""
    return len(os.sched_getaffinity(0)) * 1000


def mem_bytes() -> int:
    """Read the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def pids() -> int:
    """Read how many processes and threads there can be; a tenth is left to the host."""
    return int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii")) * 9 // 10


def gpus(root: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[Gpu, ...]:
    """List NVIDIA's devices by the driver's own listing; none without the driver."""
    found = []
    for entry in sorted(root.glob("*/information")):
        told = {
            line.partition(":")[0].strip(): line.partition(":")[2].strip()
            for line in entry.read_text(encoding="utf-8", errors="replace").splitlines()
        }
        model = re.sub(r"[^a-z0-9]+", "-", told.get("Model", "gpu").lower()).strip("-")
        model = model.removeprefix("nvidia-")
        found.append(Gpu(told.get("GPU UUID", entry.parent.name), model))
    return tuple(found)


def subnets() -> tuple[str, ...]:
    """List the networks that this host routes to, but not the default route nor our own bridges."""
    found = set()
    with open("/proc/net/route", encoding="ascii") as table:
        for line in table.readlines()[1:]:
            fields = line.split()
            interface, flags = fields[0], int(fields[3], 16)
            if interface.startswith(_OWN_INTERFACES) or not flags & _ROUTE_UP:
                continue
            address, mask = (
                socket.inet_ntoa(struct.pack("<I", int(fields[place], 16))) for place in (1, 7)
            )
            network = ipaddress.ip_network(f"{address}/{mask}")
            if network.prefixlen:
                found.add(str(network))
    return tuple(sorted(found))


def addresses() -> tuple[str, ...]:
    """List the addresses by which this host itself is reached: of every interface that is neither
    the loopback nor made for containers.
    """
    return tuple(sorted(set(_by_interface().values())))


def interface_of(address: str) -> str:
    """Find the interface that carries one of this host's addresses; empty when none does."""
    return next((name for name, own in _by_interface().items() if own == address), "")


def _by_interface() -> dict[str, str]:
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asker:
        for _, name in socket.if_nameindex():
            if name.startswith(_OF_CONTAINERS):
                continue
            request = struct.pack("256s", name.encode())
            with contextlib.suppress(OSError):  # it has none
                answer = fcntl.ioctl(asker, _SIOCGIFADDR, request)
                found[name] = socket.inet_ntoa(answer[20:24])
    return found


def address_towards(host: str, port: int) -> str:
    """Find the address by which this host reaches another; nothing is sent."""
    with contextlib.suppress(OSError):
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    return ""


def largest_nofile() -> int:
    """Find how many open files a container may be given: what is wanted, or what we may have
    ourselves, since the engine is of the same machine.
    """
    most = int(Path("/proc/sys/fs/nr_open").read_text(encoding="ascii"))
    wanted = min(_NOFILE, most)
    return wanted if _may_raise(resource.RLIMIT_NOFILE, wanted) else _hard(resource.RLIMIT_NOFILE)


def may_lock_memory() -> bool:
    """Tell whether a container may lock memory without a limit, as remote direct access needs."""
    return _may_raise(resource.RLIMIT_MEMLOCK, resource.RLIM_INFINITY)


def _hard(limit: int) -> int:
    return resource.getrlimit(limit)[1]


def _may_raise(limit: int, value: int) -> bool:
    """Try it in a child, so that nothing changes here."""
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        try:
            resource.setrlimit(limit, (value, value))
        except (OSError, ValueError):
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
