"""A user's own machine: its ssh, and what its programs do with it."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from pathlib import Path

from tests.real.ground import Done, Ground, call


class Outside:
    """A session over two hosts, and a user's ssh for it."""

    def __init__(self, ground: Ground, name: str, folder: Path) -> None:
        self.ground = ground
        self.name = name
        self.folder = folder
        self.config = folder / "ssh_config"
        self.config.write_text(ground.phalanx("ssh-config", name).ok())

    def phalanx(self, *arguments: str, stdin: str | None = None) -> Done:
        return self.ground.phalanx("ssh", *arguments, stdin=stdin)

    def command(self, program: str, *arguments: str) -> list[str]:
        """A program of OpenSSH that finds the session by the configuration, and by nothing else."""
        return [program, "-F", str(self.config), *arguments]

    def run(self, program: str, *arguments: str, stdin: str | None = None) -> Done:
        return call(*self.command(program, *arguments), stdin=stdin, env=self.ground.env)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command("ssh", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **self.ground.env},
        )


def read_all(connection: socket.socket) -> str:
    data = b""
    while piece := connection.recv(4096):
        data += piece
    return data.decode()


def by_socks(proxy: int, port: int) -> socket.socket:
    """A connection to a port of a container's loopback, through a SOCKS 5 proxy of this machine."""
    connection = socket.create_connection(("127.0.0.1", proxy), 20)
    connection.sendall(b"\x05\x01\x00")
    assert b"\x05\x00" == connection.recv(2)
    connection.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack(">H", port))
    assert b"\x05\x00" == connection.recv(10)[:2]
    return connection
