"""An editor on one's own machine works in a container, as VS Code's Remote-SSH does: nothing but
`ssh` and `scp` of that machine, a server that it installs there, and connections through SOCKS.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import pytest

from tests.real.ground import ACROSS, PROGRAMS, Ground, await_true
from tests.real.outside import Outside, by_socks
from tests.real.upkeep import Upkeep
from tests.support.ports import free_port

pytestmark = pytest.mark.real

ARCHIVE = "server.tar"
# What its login shell gets on the standard input: one at a time installs and starts the server,
# which the editor brings by scp where the container has no way out; who comes later finds it.
SCRIPT = f"""
uname -sm
mkdir -p ~/.editor-server/bin/0123abcd && cd ~/.editor-server/bin/0123abcd || exit 30
until mkdir lock 2>/dev/null; do sleep 0.05; done
if [ ! -f editor.py ]; then
    echo "destFolder==$PWD=="
    until [ -f {ARCHIVE}.done ]; do sleep 0.05; done
    tar -xf {ARCHIVE} || exit 31
fi
if ! kill -0 "$(cat pid 2>/dev/null)" 2>/dev/null; then
    nohup python3 editor.py >log 2>&1 </dev/null &
    echo $! >pid
    until grep -qs listeningOn log; do sleep 0.05; done
fi
rmdir lock
echo "pid==$(cat pid)== $(cat log)"
"""
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Server:
    """The editor's server in the container, as its script tells it."""

    pid: int
    port: int

    def attach(self, proxy: int) -> socket.socket:
        """A connection that stays, like a web socket of the editor."""
        connection = by_socks(proxy, self.port)
        connection.sendall(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        return connection


class Window:
    """One of the editor's windows: a process of ssh that shares nothing with another's.

    `shell`: without a local server the editor names one, with it the login shell is taken.
    """

    def __init__(self, outside: Outside, place: str, *shell: str) -> None:
        self.proxy = free_port()
        words = ("-v", "-T", "-D", str(self.proxy), "-o", "ConnectTimeout=15", place, *shell)
        self.process = subprocess.Popen(
            outside.command("ssh", *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **outside.ground.env},
        )
        self.say(SCRIPT)
        assert self.hear().startswith("Linux ")

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def wants_the_server_in(self) -> str:
        found = re.fullmatch(r"destFolder==(/.+)==", said := self.hear())
        assert found is not None, said
        return found[1]

    def server(self) -> Server:
        found = re.fullmatch(r"pid==(\d+)== listeningOn==(\d+)==", said := self.hear())
        assert found is not None, said
        return Server(int(found[1]), int(found[2]))

    def close(self) -> int:
        """End it as the editor does: its shell reads no more."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)

    def lose(self) -> None:
        """End it as a network that has gone does."""
        self.process.kill()
        self.process.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(20)


@pytest.fixture(scope="module")
def outside(
    ground: Ground, upkeep: Upkeep, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outside]:
    """Nothing of the session has a way out: the editor has to bring its server."""
    with ground.created("-N", "2", *ACROSS, "-c", "1", "--no-egress") as name:
        yield Outside(ground, name, tmp_path_factory.mktemp("editors"))


def bring_the_server(outside: Outside, place: str, folder: str) -> None:
    archive = outside.folder / ARCHIVE
    with tarfile.open(archive, "w") as tar:
        tar.add(PROGRAMS / "editor.py", "editor.py")
    (done := outside.folder / f"{ARCHIVE}.done").touch()
    for file in (archive, done):
        outside.run("scp", "-o", "ConnectTimeout=15", str(file), f"{place}:{folder}").ok()


def echoed(connection: socket.socket, data: bytes) -> bytes:
    """What the server sends back while it is sent something."""
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(connection.sendall, data)
        back = bytearray()
        while len(back) < len(data) and (piece := connection.recv(65536)):
            back += piece
        sending.result()
    return bytes(back)


def test_an_editor_brings_its_server_and_finds_it_again_after_its_connection_was_lost(
    outside: Outside,
) -> None:
    place, data = f"sub1.{outside.name}", os.urandom(4 * MEGABYTE)
    with Window(outside, place) as first:
        folder = first.wants_the_server_in()
        with Window(outside, place, "bash") as second:
            bring_the_server(outside, place, folder)
            server = first.server()
            assert server == second.server()

            with server.attach(first.proxy) as one, server.attach(second.proxy) as other:
                with ThreadPoolExecutor(2) as pool:
                    assert [data, data] == list(pool.map(echoed, (one, other), (data, data)))
                first.lose()
                assert b"" == one.recv(1)
                assert b"still here" == echoed(other, b"still here")
            assert 0 == second.close()
    with Window(outside, place) as third:
        assert server == third.server()
        with server.attach(third.proxy) as again:
            assert b"and again" == echoed(again, b"and again")
        third.say(f"kill {server.pid}; rm -r {folder}; exit 5\n")
        assert 5 == third.close()

    await_true(
        "the server has ended",
        lambda: outside.run("ssh", place, f"kill -0 {server.pid}").code != 0,
        10,
    )
