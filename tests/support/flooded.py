"""A manager in a process of its own, whose memory and descriptors are watched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from tests.support.ports import free_port

LONGEST_S: Final = 20.0
ANSWER_S: Final = 2.0


def resident_bytes(pid: int) -> int:
    """A process's memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Manager:
    """A manager in a process of its own."""

    pid: int
    http: int
    agents: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    @property
    def token(self) -> str:
        """The administrator's."""
        return (self.folder / "data" / "admin.token").read_text().strip()

    def healthy(self) -> bool:
        """Ask it whether it is."""
        line = HTTPConnection("127.0.0.1", self.http, timeout=ANSWER_S)
        try:
            line.request("GET", "/readyz")
            return line.getresponse().status == 200
        except OSError:
            return False
        finally:
            line.close()

    def resident_bytes(self) -> int:
        """Its memory."""
        return resident_bytes(self.pid)

    def sockets(self) -> int:
        """Its open connections and other sockets."""
        found = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found += entry.readlink().name.startswith("socket:")
        return found


def until(good: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + LONGEST_S
    while not good():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def running(folder: Path, descriptors: str) -> Iterator[Manager]:
    """Run a manager with an empty database and so many descriptors, SOFT:HARD."""
    http, agents = free_port(), free_port()
    config = folder / "manager.toml"
    config.write_text(
        f'data_dir = "{folder / "data"}"\nhttp = "127.0.0.1:{http}"\n'
        f'rpc = "tcp://127.0.0.1:{agents}"\n'
    )
    program = [sys.executable, "-m", "phalanx_manager", "--config", str(config)]
    command = ["prlimit", f"--nofile={descriptors}", *program]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        found = Manager(process.pid, http, agents, folder)
        try:
            until(found.healthy)
            yield found
            process.terminate()
            assert 0 == process.wait(LONGEST_S)
        finally:
            process.kill()
    assert "Traceback" not in (folder / "log").read_text()
