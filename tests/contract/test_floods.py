"""Strangers in numbers at the manager's two ports: it stays up, answers, and forgets them."""

from __future__ import annotations

import gzip
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.support.flooded import LONGEST_S, Manager, running, until

AT_ONCE: Final = 200
DESCRIPTORS: Final = 300
"""Of which the API takes half: fewer than those that knock."""

GROWTH_BYTES: Final = AT_ONCE * (640 << 10)
"""What the HTTP server says of nonsense is longer than the nonsense, and lives for a while."""

_GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
_HUGE_FRAME: Final = b"\x06" + (1 << 62).to_bytes(8, "big")

AGENTS_PORT: Final = {
    "silence": b"",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": b"\xa5\x5a" * 32_768,
    "half a greeting": _GREETING[:20],
    "a frame of 4 EiB": _GREETING + _HUGE_FRAME + b"x" * 4096,
    "another mechanism": _GREETING.replace(b"CURVE", b"PLAIN"),
}
_BOMB: Final = gzip.compress(bytes(128 << 20))

HTTP_PORT: Final = {
    "silence": b"",
    "half a request": b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nX-A: ",
    "a body that never comes": (
        b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 900000\r\n\r\n{"
    ),
    "a header of 96 KiB": b"GET /healthz HTTP/1.1\r\nX: " + b"y" * (96 << 10),
    "noise": b"\xa5\x5a" * 32_768,
    "bodies that unpack to 128 MiB": (
        b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(_BOMB) + _BOMB
    ),
}


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """A manager that may have few descriptors."""
    limits = f"{DESCRIPTORS}:{DESCRIPTORS}"
    with running(tmp_path_factory.mktemp("manager"), limits) as found:
        yield found


def test_a_manager_takes_all_descriptors_that_it_may_have(tmp_path: Path) -> None:
    with running(tmp_path, "256:4096") as found:
        assert (4096, 4096) == resource.prlimit(found.pid, resource.RLIMIT_NOFILE)


def flood(port: int, said: bytes) -> ExitStack:
    """Open many connections that all say the same and then stay."""
    with ExitStack() as lines:
        for _number in range(AT_ONCE):
            line = lines.enter_context(socket.create_connection(("127.0.0.1", port), LONGEST_S))
            with suppress(OSError):  # refused in the middle of it
                line.sendall(said)
        return lines.pop_all()


@pytest.mark.parametrize("what", AGENTS_PORT)
def test_strangers_at_the_agents_port_do_no_harm(manager: Manager, what: str) -> None:
    sockets, memory = manager.sockets(), manager.resident_bytes()

    with flood(manager.agents, AGENTS_PORT[what]):
        assert manager.healthy()
        assert manager.resident_bytes() < memory + GROWTH_BYTES

    until(lambda: manager.sockets() <= sockets)


@pytest.mark.parametrize("what", HTTP_PORT)
def test_strangers_at_the_api_do_no_harm(manager: Manager, what: str) -> None:
    sockets, memory = manager.sockets(), manager.resident_bytes()

    with flood(manager.http, HTTP_PORT[what]):
        assert manager.healthy()
        assert manager.resident_bytes() < memory + GROWTH_BYTES

    until(lambda: manager.sockets() <= sockets)
