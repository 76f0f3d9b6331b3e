"""The units are right, and the daemons tell a real notify socket what systemd wants to hear."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx_client.connection import connect_blocking
from phalanx_client.failure import Refused
from phalanx_wire.api import CreateAgentToken
from tests.real.ground import await_true

pytestmark = pytest.mark.real

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
PYTHON = "/usr/local/lib/phalanx/bin/python"
WATCHDOG_USEC = "3000000"
HEARD_WITHIN_S = 20.0


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units as they would be installed, with this machine's Python."""
    paths = []
    for unit in sorted(UNITS.iterdir()):
        target = tmp_path / unit.name
        target.write_text(unit.read_text().replace(PYTHON, sys.executable))
        paths.append(str(target))
    return paths


def test_systemd_finds_nothing_wrong_with_the_units(units: list[str]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )

    assert 3 == len(units)
    assert (0, "") == (done.returncode, done.stderr)


def test_the_managers_unit_leaves_it_little_power(units: list[str]) -> None:
    manager = next(unit for unit in units if unit.endswith("manager.service"))
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", manager]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout


@pytest.mark.parametrize("name", ["phalanx-manager.service", "phalanx-agent.service"])
def test_a_restart_of_a_daemon_ends_nothing_but_the_daemon(name: str) -> None:
    lines = (UNITS / name).read_text().splitlines()

    assert {"Type=notify", "KillMode=process", "Restart=always"} <= set(lines)
    assert [] == [line for line in lines if line.startswith("KillSignal")]


def test_the_agents_unit_lets_it_end_what_another_user_runs() -> None:
    granted = (UNITS / "phalanx-agent.service").read_text()

    assert "CAP_KILL" in granted


class Listener:
    """The socket that systemd would listen on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(HEARD_WITHIN_S)

    def hears(self, state: str) -> None:
        """Wait until a daemon has said so."""
        while self._socket.recv(4096).decode() != state:
            continue

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with contextlib.closing(Listener(tmp_path / "notify")) as listening:
        yield listening


@pytest.fixture
def netns() -> Iterator[list[str]]:
    """What brings a command into a network of its own: an agent guards the firewall there."""
    with subprocess.Popen(
        ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"!")
        holder.stdout.read(1)  # `cat` runs: the network exists
        enter = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        subprocess.run([*enter, "ip", "link", "set", "lo", "up"], check=True)
        yield enter
        holder.stdin.close()


@contextlib.contextmanager
def daemon(argv: list[str], listener: Listener, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon under systemd's environment; told to end at the end, which must go well."""
    env = {
        **os.environ,
        "NOTIFY_SOCKET": str(listener.path),
        "WATCHDOG_USEC": WATCHDOG_USEC,
    }
    with log.open("wb") as sink, subprocess.Popen(argv, env=env, stdout=sink, stderr=sink) as made:
        try:
            yield made
        finally:
            made.send_signal(signal.SIGTERM)
        assert 0 == made.wait(20), log.read_text()


def a_manager(folder: Path) -> list[str]:
    config = folder / "manager.toml"
    config.write_text(
        f'data_dir = "{folder}/manager"\nhttp = "unix://{folder}/api"\n'
        'rpc = "tcp://127.0.0.1:7911"\n'
    )
    return [sys.executable, "-m", "phalanx_manager", "--config", str(config)]


def an_agent(folder: Path, runtime: str, join: str) -> list[str]:
    config = folder / "agent.toml"
    config.write_text(
        f'name = "host1"\nstate_dir = "{folder}/agent"\nruntime_dir = "{runtime}"\n'
        f'engine = "unix://{folder}/no-engine"\njoin = "{join}"\n'
    )
    return [sys.executable, "-m", "phalanx_agent", "--config", str(config)]


def test_the_manager_says_ready_alive_and_stopping(
    tmp_path: Path, listener: Listener, netns: list[str]
) -> None:
    with daemon([*netns, *a_manager(tmp_path)], listener, tmp_path / "log"):
        listener.hears("READY=1")
        listener.hears("WATCHDOG=1")
        listener.hears("WATCHDOG=1")
    listener.hears("STOPPING=1")


def test_the_agent_says_ready_when_it_has_reached_the_manager(
    tmp_path: Path, listener: Listener, netns: list[str]
) -> None:
    runtime = f"/dev/shm/phx-systemd-{os.getpid()}"
    quiet = Listener(tmp_path / "other")
    with (
        contextlib.closing(quiet),
        daemon([*netns, *a_manager(tmp_path)], quiet, tmp_path / "manager.log"),
    ):
        quiet.hears("READY=1")
        token = (tmp_path / "manager" / "admin.token").read_text().strip()
        with connect_blocking(f"unix://{tmp_path}/api", token) as client:
            join = client.create_agent_token(CreateAgentToken("host1")).token
            with daemon([*netns, *an_agent(tmp_path, runtime, join)], listener, tmp_path / "log"):
                listener.hears("READY=1")
                listener.hears("WATCHDOG=1")
                await_true(
                    "the manager sees it",
                    lambda: ["host1"] == [node.name for node in client.nodes().nodes],
                )
            listener.hears("STOPPING=1")
    shutil.rmtree(runtime, ignore_errors=True)


def test_a_socket_of_systemd_is_the_managers_api(tmp_path: Path, netns: list[str]) -> None:
    command = a_manager(tmp_path)
    config = Path(command[-1])
    config.write_text(config.read_text().replace(f"unix://{tmp_path}/api", "fd://3"))
    activate = [*netns, "systemd-socket-activate", f"--listen={tmp_path}/api", *command]
    log = tmp_path / "log"
    with log.open("wb") as sink, subprocess.Popen(activate, stdout=sink, stderr=sink) as made:
        try:
            await_true("systemd listens", (tmp_path / "api").exists)
            with (
                connect_blocking(f"unix://{tmp_path}/api", "phx_none") as client,
                pytest.raises(Refused),  # it has no such token
            ):
                client.nodes()  # starts the manager, and waits for it
        finally:
            made.send_signal(signal.SIGTERM)
        assert 0 == made.wait(20), log.read_text()
