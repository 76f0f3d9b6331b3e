"""A PostgreSQL of the tests' own: Debian's programs, a folder that is thrown away, fsync on."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from phalanx_manager.store.leading import Candidate
from phalanx_manager.store.lease import PostgresLease
from phalanx_manager.store.postgres import Postgres
from tests.support.ports import free_port

PATIENCE_S = 60.0
USER, PASSWORD = "phalanx", "correct-horse"
_ADMIN = "postgres"


class Server:
    """A running server. Over its unix socket everybody is let in, over TCP by password."""

    def __init__(
        self, folder: Path, port: int, start: Callable[[], subprocess.Popen[bytes]]
    ) -> None:
        self.folder = folder
        self.port = port
        self._start = start
        self._process = start()
        self._serial = itertools.count(1)
        self._emptied = ""

    def stop(self) -> None:
        """Stop at once, as by a crash."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(PATIENCE_S)

    def start_again(self) -> None:
        """Start after a `stop`."""
        self._process = self._start()

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={self.folder}&port={self.port}"

    def tcp_url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    async def fresh(self) -> str:
        """Make a database that nobody has used; its URL."""
        name = f"t{next(self._serial)}"
        await self.admin(f'CREATE DATABASE "{name}"')
        return self.url(name)

    async def with_schema(self) -> str:
        """Make or empty a database that has our schema; its URL. One test at a time has it."""
        if not self._emptied:
            self._emptied = await self.fresh()
            async with PostgresLease.open(self._emptied, Candidate("first", "", "key")) as lease:
                epoch = await lease.take()
                assert isinstance(epoch, int)
                async with Postgres.open(self._emptied, epoch):
                    await lease.give_back(epoch)
        connection = await asyncpg.connect(self._emptied)
        try:
            tables = await connection.fetch(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' "
                "AND tablename NOT IN ('leader', 'kernel_step')"
            )
            names = ", ".join(f'"{name}"' for (name,) in tables)
            await connection.execute(f"TRUNCATE {names} RESTART IDENTITY")
            await connection.execute("INSERT INTO cluster (name) VALUES ('default')")
        finally:
            await connection.close()
        return self._emptied

    async def admin(self, statement: str, database: str = _ADMIN) -> None:
        connection = await asyncpg.connect(self.url(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


def programs() -> Path:
    """The folder of Debian's newest PostgreSQL; without one the tests fail, they do not skip."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    if not found:
        pytest.fail("PostgreSQL is not installed: apt-get install postgresql (deploy/setup.sh)")
    return found[-1].parent


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Start a server; it and all that it wrote are gone afterwards."""
    bin_ = programs()
    # The server refuses to run as root: then it is Debian's own user for it.
    who = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    folder = Path(tempfile.mkdtemp(prefix="phalanx-pg-"))
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        for path in (folder, secret):
            os.chown(path, who.pw_uid, who.pw_gid)
        data = folder / "data"
        _run_as(who, [
            str(bin_ / "initdb"), "--pgdata", str(data), "--username", USER, "--no-sync",
            "--auth-local", "trust", "--auth-host", "scram-sha-256", "--pwfile", str(secret),
            "--encoding", "UTF8", "--locale", "C",
        ])  # fmt: skip
        with _started(who, bin_, folder, data) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _started(who: pwd.struct_passwd, bin_: Path, folder: Path, data: Path) -> Iterator[Server]:
    port = free_port()

    def start() -> subprocess.Popen[bytes]:
        return _start(who, bin_ / "postgres", data, port)

    server = Server(folder, port, start)
    try:
        yield server
    finally:
        server.stop()


def _start(who: pwd.struct_passwd, program: Path, data: Path, port: int) -> subprocess.Popen[bytes]:
    """Start it, and wait until it says that it is ready."""
    folder = data.parent
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
        (folder / "log").open("ab") as log,
    ):
        (folder / "ready").unlink(missing_ok=True)
        told.bind(str(folder / "ready"))
        os.chown(folder / "ready", who.pw_uid, who.pw_gid)
        told.settimeout(PATIENCE_S)
        process = subprocess.Popen(
            [
                str(program), "-D", str(data), "-k", str(folder), "-p", str(port),
                "-c", "listen_addresses=127.0.0.1", "-c", "fsync=on",
                "-c", "max_connections=200", "-c", "shared_buffers=32MB",
                "-c", "recovery_init_sync_method=syncfs",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
            env={"NOTIFY_SOCKET": str(folder / "ready"), "PATH": os.environ["PATH"]},
            user=who.pw_uid, group=who.pw_gid, extra_groups=[],
        )  # fmt: skip
        try:
            while b"READY=1" not in told.recv(4096):
                continue
        except TimeoutError:
            process.kill()
            process.wait(PATIENCE_S)
            pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()}")
        return process


def _run_as(who: pwd.struct_passwd, command: list[str]) -> None:
    done = subprocess.run(
        command, user=who.pw_uid, group=who.pw_gid, extra_groups=[], cwd="/",
        capture_output=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
