"""Which subnet a session gets, and which address each of its kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Final

from phalanx_wire.ids import SessionId

SMALLEST_PREFIX: Final = 26
_KEPT: Final = 4
"""Network, gateway, broadcast, and one that the engine may take for itself."""


def prefix(kernels: int, hosts: int) -> int:
    """Choose the length of the prefix: /26, or larger where the gang needs it.

    Kernels sit above the lower quarter, where the engine numbers its own endpoints: one for each
    host, and the gateway.
    """
    length = SMALLEST_PREFIX
    while True:
        room = 1 << (32 - length)
        if kernels <= room - _KEPT - hosts and kernels < room * 3 // 4 and hosts + 2 <= room // 4:
            return length
        length -= 1


def addresses(subnet: IPv4Network, kernels: int) -> tuple[str, ...]:
    """Give out the upper end of a subnet: the last rank has the last address, ranks ascend."""
    first = int(subnet.broadcast_address) - kernels
    return tuple(
        str(subnet.network_address + (first + n - int(subnet.network_address)))
        for n in range(kernels)
    )


def choose(
    pool: IPv4Network, length: int, taken: Iterable[str], session: SessionId, attempt: int
) -> IPv4Network | None:
    """Find a free subnet in the pool, or None when all of that size are taken.

    Where it looks first depends on the session and its attempt, so that a subnet that was given
    back rests as long as it can, and one that an engine would not take is not tried again.
    """
    if length < pool.prefixlen:
        return None
    step = 1 << (32 - length)
    base, count = int(pool.network_address), pool.num_addresses // step
    busy: set[int] = set()
    for text in taken:
        other = _network(text)
        if other is not None and other.overlaps(pool):
            if other.prefixlen <= pool.prefixlen:
                return None
            low = (int(other.network_address) - base) // step
            high = (int(other.broadcast_address) - base) // step
            busy.update(range(low, high + 1))
    start = (
        int.from_bytes(hashlib.sha256(f"{session}.{attempt}".encode()).digest()[:8], "big") % count
    )
    for offset in range(count):
        at = (start + offset) % count
        if at not in busy:
            return IPv4Network((base + at * step, length))
    return None


def covering(pool: IPv4Network, routes: Iterable[str]) -> str | None:
    """Find a route that covers the whole pool, so that no subnet of it can be used."""
    for text in routes:
        other = _network(text)
        if other is not None and pool.subnet_of(other):
            return text
    return None


def home(own: str, routes: Iterable[str]) -> str:
    """Find the smallest of these networks that an address lies in, or the address itself as one."""
    around = [
        network
        for text in routes
        if (network := _network(text)) is not None and ip_address(own) in network
    ]
    smallest = max(around, key=lambda network: network.prefixlen, default=None)
    return str(smallest or ip_network(own))


@lru_cache(maxsize=16_384)
def _network(text: str) -> IPv4Network | None:
    """Read a route; the default route and what is not IPv4 take nothing from the pool."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    return network if isinstance(network, IPv4Network) and network.prefixlen else None
