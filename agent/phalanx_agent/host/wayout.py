"""Leaves a container's way out to its gateway alone.

All containers of a host share the way out, and none may reach another there. But an engine gives
each a route to every address of it, and whoever sends to thousands that nobody has fills the
kernel's one table of neighbours: no container of the host, nor the host itself, finds a new one
then. Behind the gateway there is nobody to be found.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from phalanx_agent.host.inside import ProcessGone, network_of

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
"""Family, bits of destination and source, service, table, protocol, scope, kind, flags."""

_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_ERROR, _DONE = 2, 3
_NEW, _DELETE, _GET = 24, 25, 26
_REQUEST, _ACK, _DUMP, _REPLACE, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x400
_DESTINATION, _INTERFACE, _GATEWAY, _PREFERRED = 1, 4, 5, 7
_MAIN, _BY_ADMINISTRATOR, _LINK, _UNICAST = 254, 4, 253, 1
_BITS: Final = 32


@dataclass(frozen=True, slots=True)
class _Route:
    """A route: its raw attributes by type, and the bits of its destination."""

    bits: int
    has: dict[int, bytes]


def narrow(pid: int, subnet: str) -> None:
    """Have a container's only neighbour on its way out be the gateway. Where a process has no way
    out that is numbered so, as one of the host itself, nothing changes; nor where that is done.

    Args:
        pid: of a process in the container; one that has ended is fine.
        subnet: of the way out, IPv4 in CIDR form.

    Raises:
        OSError: it could not be done.
    """
    try:
        with network_of(pid) as network:
            if os.path.samestat(os.fstat(network.network), os.stat("/proc/self/ns/net")):
                return  # the number is another's now
            with network.open_socket(socket.AF_NETLINK, socket.SOCK_RAW) as line:
                line.settimeout(1.0)
                _narrow(line, ipaddress.IPv4Network(subnet))
    except ProcessGone:
        return


def _narrow(line: socket.socket, subnet: ipaddress.IPv4Network) -> None:
    found = list(_routes(line))
    target = subnet.network_address.packed
    for wide in found:
        if wide.bits != subnet.prefixlen or wide.has.get(_DESTINATION) != target:
            continue
        here = wide.has[_INTERFACE]
        gateways = [
            route.has[_GATEWAY]
            for route in found
            if route.bits == 0 and _GATEWAY in route.has and route.has.get(_INTERFACE) == here
        ]
        if not gateways or _GATEWAY in wide.has:
            continue
        kept = {key: wide.has[key] for key in (_INTERFACE, _PREFERRED) if key in wide.has}
        only = _Route(_BITS, {_DESTINATION: gateways[0], **kept})
        _change(line, _NEW, _REQUEST | _ACK | _CREATE | _REPLACE, only)
        _change(line, _DELETE, _REQUEST | _ACK, _Route(wide.bits, {_DESTINATION: target, **kept}))


def _routes(line: socket.socket) -> Iterator[_Route]:
    """List the routes of the main table."""
    _send(line, _GET, _REQUEST | _DUMP, _ROUTE.pack(socket.AF_INET, *[0] * 8))
    for kind, body in _answers(line):
        if kind == _NEW and body[4] == _MAIN:
            yield _Route(body[1], dict(_attributes(body[_ROUTE.size :])))


def _change(line: socket.socket, verb: int, flags: int, route: _Route) -> None:
    scope = (_MAIN, _BY_ADMINISTRATOR if verb == _NEW else 0, _LINK, _UNICAST, 0)
    body = _ROUTE.pack(socket.AF_INET, route.bits, 0, 0, *scope)
    for kind, value in route.has.items():
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
    _send(line, verb, flags, body)
    for _acknowledged in _answers(line):
        pass


def _send(line: socket.socket, kind: int, flags: int, body: bytes) -> None:
    line.sendto(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body, (0, 0))


def _answers(line: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Read the kernel's messages up to its last one.

    Raises:
        OSError: it refuses, or does not answer.
    """
    while True:
        said = line.recv(1 << 16)
        while said:
            length, kind, *_rest = _HEADER.unpack_from(said)
            body, said = said[_HEADER.size : length], said[(length + 3) & ~3 :]
            if kind == _ERROR:
                (number,) = struct.unpack_from("=i", body)
                if number:
                    raise OSError(-number, os.strerror(-number))
            if kind in (_ERROR, _DONE):
                return
            yield kind, body


def _attributes(rest: bytes) -> Iterator[tuple[int, bytes]]:
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        yield kind, rest[_ATTRIBUTE.size : length]
        rest = rest[(length + 3) & ~3 :]
