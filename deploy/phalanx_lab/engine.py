"""One Docker Engine: its command line, its leftovers, and a few questions to its socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from typing import Any

import structlog

from phalanx_lab import engine_store, processes
from phalanx_lab import plan as plans
from phalanx_lab.plan import Plan
from phalanx_lab.unavailable import Unavailable

log = structlog.get_logger()

# One image store for all generations: newer engines would keep images in containerd.
CONFIG = b'{"features": {"containerd-snapshotter": false}}\n'


def command(plan: Plan, host: int) -> list[str]:
    """The argument list of a host's dockerd, to be run inside the host's room."""
    run, state = plan.host_run(host), plan.host_state(host)
    return [
        "dockerd",
        f"--host=unix://{plan.engine_socket(host)}",
        "--group=root",
        f"--data-root={state}/engine",
        f"--exec-root={run}/exec",
        f"--pidfile={run}/docker.pid",
        f"--config-file={state}/daemon.json",  # else the machine's own file would be read
        f"--cgroup-parent=/{plan.cgroup(host)}",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        "--storage-driver=overlay2",
        f"--bip={plans.ENGINE_BRIDGE}",
        f"--default-address-pool=base={plans.ENGINE_POOL},size=26",
        "--log-level=warn",
    ]


def prepare(plan: Plan, host: int) -> None:
    """Make the folders and the empty configuration that the command line names."""
    os.makedirs(f"{plan.host_state(host)}/engine", mode=0o711, exist_ok=True)
    os.makedirs(f"{plan.host_run(host)}/exec", exist_ok=True)
    plans.write(f"{plan.host_state(host)}/daemon.json", CONFIG)


def clear_before_start(plan: Plan, host: int) -> None:
    """Remove what a killed engine left that would keep the next one from starting.

    A pid file whose process is gone, or a zombie, reads as "running" to dockerd; so does a
    containerd that outlived it. Its note of a network that it was removing can be as bad.
    """
    run = plan.host_run(host)
    for pidfile in (f"{run}/docker.pid", f"{run}/exec/containerd/containerd.pid"):
        pid = _pid_in(pidfile)
        if pid and processes.alive(pid):
            argv = processes.command(pid)
            if not (processes.is_engine_program(argv) and any(run in word for word in argv)):
                pid = 0  # the number was given to a stranger
        if pid and processes.alive(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if not processes.await_end(pid, within=5):
                raise Unavailable(f"process {pid}", "does not end", "Look at it with ps.")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(pidfile)
    if names := engine_store.mend(f"{plan.host_state(host)}/engine/network/files/local-kv.db"):
        log.warning("lab.engine.mended", host=host, networks=names)


def _pid_in(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read().strip() or 0)
    except (FileNotFoundError, ValueError):
        return 0


class Connection(http.client.HTTPConnection):
    """HTTP over an engine's unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("engine", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Open the socket in place of a TCP connection."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def answers(path: str) -> bool:
    """Whether an engine is up; never raises, since a starting one refuses in many ways."""
    connection = Connection(path, timeout=2)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def ask(
    path: str, method: str, url: str, body: Any = None, *, timeout: float = 60
) -> tuple[int, Any]:
    """One request with a JSON body, or a stream of a tar's pieces; status and decoded answer.

    An answer of several JSON documents, as progress is sent, comes back as a list.
    """
    connection = Connection(path, timeout=timeout)
    headers = {"Content-Type": "application/json"}
    sent = body
    if isinstance(body, Iterator):
        headers = {"Content-Type": "application/x-tar"}
    elif body is not None:
        sent = json.dumps(body)
    try:
        connection.request(method, url, body=sent, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(path, f"{method} {url} failed: {error}", "Is the engine up?") from error
    finally:
        connection.close()
    lines = [json.loads(line) for line in text.splitlines() if line.strip().startswith(("{", "["))]
    return answer.status, lines[0] if len(lines) == 1 else lines


def save(path: str, url: str, target: str, *, timeout: float = 600) -> None:
    """Write an answer's body into a file."""
    connection = Connection(path, timeout=timeout)
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        if answer.status != 200:
            raise Unavailable(path, f"GET {url} answered {answer.status}", "Is the engine up?")
        with open(target, "wb") as file:
            shutil.copyfileobj(answer, file, 2**20)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(path, f"GET {url} failed: {error}", "Is the engine up?") from error
    finally:
        connection.close()
