"""Whoever copies files slowly, or is gone in the midst of it, holds up nobody else."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from tests.real.ground import Ground, await_true

pytestmark = pytest.mark.real

BIG = "truncate -s 1G /tmp/big"
"""Much more than fits on the way: a hundred megabytes do."""


def begin(ground: Ground, request: str, body: bytes = b"") -> socket.socket:
    """Send the beginning of a request; its answer is not read."""
    url = urlsplit(ground.lab.url)
    assert url.hostname is not None
    assert url.port is not None
    line = socket.create_connection((url.hostname, url.port))
    head = f"{request}\r\nHost: here\r\nAuthorization: Bearer {ground.lab.admin_token}\r\n"
    line.sendall(head.encode() + b"\r\n" + body)
    return line


def test_a_container_whose_files_nobody_takes_runs_commands_and_is_stopped(clean: Ground) -> None:
    with clean.created("-c", "0.5") as name:
        clean.inside(name, "sh", "-c", BIG).ok()
        request = f"GET /v1/sessions/{name}/archive?path=/tmp/big HTTP/1.1"
        with begin(clean, request) as line:
            begun = line.recv(15)
            said = clean.inside(name, "echo", "here", timeout=20)
            clean.phalanx("stop", "--grace", "1s", name, timeout=20).ok()

    assert b"HTTP/1.1 200 OK" == begun
    assert "here\n" == said.ok()


def test_half_of_what_is_sent_keeps_nobody_waiting_and_leaves_nothing(clean: Ground) -> None:
    with clean.created("-c", "0.5") as name:
        request = (
            f"PUT /v1/sessions/{name}/archive?path=/tmp HTTP/1.1\r\n"
            "Content-Type: application/x-tar\r\nContent-Length: 100000"
        )
        half = b"half".ljust(100, b"\0") + b"0000644\0" + bytes(20_000)
        with begin(clean, request, half):
            said = clean.inside(name, "echo", "here", timeout=20)
        await_true("it was given up", lambda: clean.inside(name, "ls", "/tmp").ok() == "")

    assert "here\n" == said.ok()
