"""What a person at a terminal does to commands, and what output does to the terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from aiohttp import web

from phalanx_wire.api import SessionList
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import (
    END,
    ID,
    FakeManager,
    fails,
    line,
    session,
    stream,
)

ONE = f"/v1/sessions/{ID}"
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m and \x9b6n plain"


def phalanx(manager: FakeManager, *argv: str, **how: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "phalanx_client", "--url", manager.url, *argv]
    return subprocess.Popen(command, **how)  # type: ignore[call-overload,no-any-return]


def read_all(descriptor: int) -> bytes:
    """What came to a terminal until the last writer has left it."""
    said = b""
    while True:
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # how a terminal ends
            return said
        if not piece:
            return said
        said += piece


def test_what_a_container_prints_does_not_steer_the_terminal(manager: FakeManager) -> None:
    manager.on("GET", "/v1/sessions/demo", session())
    manager.on("GET", f"{ONE}/logs", stream(line(0, HOSTILE, "p1"), END))
    ours, theirs = pty.openpty()

    with phalanx(manager, "logs", "demo", "--no-prefix", stdout=theirs) as process:
        os.close(theirs)
        said = read_all(ours)
    os.close(ours)

    assert 0 == process.returncode
    assert b"\x1b[31mred\x1b[0m and 6n plain\x1b[0m\r\n" == said


def test_a_refusal_does_not_steer_the_terminal(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", "/v1/sessions/demo", fails(409, "odd", "no \x1b[2J way", hint="try\nagain"))

    assert "phalanx: no \\x1b[2J way\n  try\nagain\n" == cli("show", "demo").err


def test_the_second_interrupt_leaves_at_once(manager: FakeManager) -> None:
    never: list[Callable[[], None]] = []

    async def logs(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(line(0, "up", "p1").encode())
        over = asyncio.Event()
        never.append(over.set)
        await over.wait()
        return response

    manager.on("POST", "/v1/sessions", session("pending"))
    manager.on("GET", f"{ONE}/wait", session("running"))
    manager.on("GET", f"{ONE}/logs", logs)
    manager.on("POST", f"{ONE}/stop", session("stopping"))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with phalanx(manager, "run", "-i", "x", "true", **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"up" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        told = b""
        while b"Ctrl-C again" not in told:
            told += process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()

    assert (130, b"") == (process.returncode, rest)
    assert 1 == len(manager.asked("POST", f"{ONE}/stop"))


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1", "nonsense"])
def test_any_locale_gets_every_character_spelt_or_as_it_is(
    manager: FakeManager, locale: str
) -> None:
    manager.on("GET", "/v1/sessions/demo", session())
    manager.on("GET", f"{ONE}/logs", stream(line(0, "naïve 日本", "p1"), END))
    environ = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environ}

    with phalanx(manager, "logs", "demo", "--no-prefix", **pipes) as process:
        out, err = process.communicate(timeout=30)

    assert (0, b"") == (process.returncode, err)
    assert out in {
        "naïve 日本\n".encode(),
        b"na\\xefve \\u65e5\\u672c\n",
        b"na\xefve \\u65e5\\u672c\n",
    }


FULL = "phalanx: the output can't be written: No space left on device\n"


@pytest.mark.parametrize(
    ("redirected", "code", "told"),
    [
        ("ps >&-", 0, ""),
        ("ps <&-", 0, ""),
        ("ps 2>&-", 0, ""),
        ("ps >/dev/full", 69, FULL),
        ("show nobody 2>/dev/full", 66, ""),
        ("show nobody 2>&-", 66, ""),
    ],
)
def test_streams_that_are_closed_or_full_change_nothing_but_what_is_told(
    manager: FakeManager, redirected: str, code: int, told: str
) -> None:
    manager.on("GET", "/v1/sessions", SessionList(()))
    command = f'"$1" -m phalanx_client --url "$2" {redirected}'

    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, manager.url],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (code, told) == (done.returncode, done.stderr)
