"""What /proc tells of containers; the containers are processes of the test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from phalanx_agent.host import census
from phalanx_wire.look import MAX_TEXT, Process, Socket

LONG = "long" * 100
PROGRAM = f"""
import os, signal, socket, subprocess, sys
server = socket.create_server(("127.0.0.1", 29500))
client = socket.create_connection(("127.0.0.1", 29500))
taken, _ = server.accept()
six = socket.create_server(("::", 29501), family=socket.AF_INET6)
ended = subprocess.Popen(["true"])
os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
stopped = subprocess.Popen(["sleep", "1000"])
stopped.send_signal(signal.SIGSTOP)
os.waitpid(stopped.pid, os.WUNTRACED)
strange = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", "a\\nb\\x1b[31m",
                            "{LONG}"], env={{"SECRET": "x", "RANK": "3", "WORLD_SIZE": "8"}})
print("there", flush=True)
while True:
    sum(range(1000))
"""


@pytest.fixture
def container() -> Iterator[int]:
    """The host's number of process 1 of a space of its own, with a network of its own."""
    inner = [sys.executable, "-c", PROGRAM]
    shell = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    up = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", *inner]
    with subprocess.Popen([*shell, *up], stdout=subprocess.PIPE, text=True) as outside:
        assert outside.stdout is not None
        assert "there" == outside.stdout.readline().strip()
        with open(f"/proc/{outside.pid}/task/{outside.pid}/children") as file:
            yield int(file.read().split()[0])
        outside.kill()


def by_command(processes: tuple[Process, ...], text: str) -> Process:
    (found,) = [one for one in processes if text in one.command and one.pid != 1]
    return found


@pytest.mark.real
def test_processes_and_sockets_are_read_without_anything_running_inside(container: int) -> None:
    seen = census.Census().read(container, own_only=False)
    later = census.again(seen, 1.0)

    strange = by_command(seen.processes, "a?b?[31m")
    assert MAX_TEXT == len(strange.command)
    assert {"RANK": "3", "WORLD_SIZE": "8"} == strange.variables
    stopped = by_command(later, "sleep 1000")
    assert (1, "T") == (stopped.parent, stopped.state)
    assert "Z" == by_command(seen.processes, "[true]").state
    assert [True] == [one.ours for one in seen.processes if one.pid == 1]
    (first,) = [one for one in later if one.pid == 1]
    assert "R" == first.state
    listening = {(one.local, one.local_port, one.pid) for one in seen.sockets[:2]}
    assert {("127.0.0.1", 29500, 1), ("::", 29501, 1)} == listening
    assert ["connected", "connected"] == [one.state for one in seen.sockets[2:]]
    assert not seen.more


@pytest.mark.real
def test_on_a_network_that_is_not_its_own_only_its_own_sockets_are_told(container: int) -> None:
    with subprocess.Popen(
        ["nsenter", "--net", "-t", str(container), sys.executable, "-c",
         "import socket; s = socket.create_server(('127.0.0.1', 7)); print(flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as stranger:  # fmt: skip
        assert stranger.stdout is not None
        stranger.stdout.readline()
        everything = census.Census().read(container, own_only=False)
        own = census.Census().read(container, own_only=True)
        stranger.communicate(b"\n")

    assert [7] == [one.local_port for one in everything.sockets if one.pid == 0]
    assert [] == [one for one in own.sockets if one.pid == 0]


def test_of_a_process_that_has_ended_there_is_nothing_to_tell() -> None:
    seen = census.Census().read(1 << 30, own_only=False)

    assert ((), ()) == (seen.processes, seen.sockets)
    assert None is census.numbers(1 << 30)


def test_tables_of_sockets_are_read_in_both_families() -> None:
    four = "0: 0100007F:3039 00000000:0000 0A 0:0 00:0 0 0 0 77 1"
    dialled = "1: 0A01A8C0:C350 FB01A8C0:3039 02 0:0 00:0 0 0 0 78 1"
    mapped = (
        "2: 0000000000000000FFFF00000100007F:0016 0000000000000000FFFF00000200007F:0017 01 "
        "0:0 00:0 0 0 0 79 1"
    )
    waiting = "3: 0100007F:3039 0100007F:0001 06 0:0 00:0 0 0 0 0 1"

    assert [
        Socket("listen", "127.0.0.1", 12345, pid=9),
        Socket("connecting", "192.168.1.10", 50000, "192.168.1.251", 12345),
        Socket("connected", "127.0.0.1", 22, "127.0.0.2", 23),
    ] == list(census.sockets_of([four, dialled, mapped, waiting, "short"], {"77": 9}))
