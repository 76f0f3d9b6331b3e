"""Holding a process's network. Entering another one needs root, as the real stage has it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from phalanx_agent.host.inside import ProcessGone, network_of


def test_a_process_that_is_not_there_is_said() -> None:
    with pytest.raises(ProcessGone), network_of(1 << 30):
        pass


def test_the_end_of_a_process_is_noticed_and_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    argv = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(argv, stdin=subprocess.PIPE) as process,
        network_of(process.pid) as network,
    ):
        lived = network.still_lives()
        process.communicate(b"\n")
        lives = network.still_lives()

    assert (True, False) == (lived, lives)
    assert before == len(os.listdir("/proc/self/fd"))


@pytest.mark.real
def test_a_socket_is_of_the_network_that_it_was_made_in() -> None:
    program = "import socket; s = socket.create_server(('127.0.0.1', 7)); print(); s.accept()"
    argv = ["unshare", "--net", "sh", "-c", f'ip link set lo up && exec python3 -c "{program}"']
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with network_of(process.pid) as network, network.tcp_socket() as made:
            made.setblocking(True)
            made.connect(("127.0.0.1", 7))

    assert 0 == process.returncode
