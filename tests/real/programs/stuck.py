"""Programs that hang, each as a user's would; `stuck.py CASE`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

CASE = sys.argv[1]
RANK, SIZE = int(os.environ["RANK"]), int(os.environ["BACKENDAI_CLUSTER_SIZE"])
PORT = int(os.environ["MASTER_PORT"])
HELD = []


def serve(address: str = "0.0.0.0", port: int = PORT) -> None:
    """Listen, take all who come, and wait for more for ever."""
    with socket.create_server((address, port), reuse_port=True) as server:
        while True:
            HELD.append(server.accept())


def join(port: int = PORT) -> None:
    """Connect to rank 0, however long it takes, and wait for its word."""
    while True:
        with contextlib.suppress(OSError):
            HELD.append(socket.create_connection(("main1", port)))
            HELD[-1].recv(1)
        time.sleep(0.2)


def mesh() -> None:
    """Find each other by rank 0, and then connect directly, as collectives do."""
    for port in (PORT, 40000):
        if RANK == 0:
            HELD.append(socket.create_server(("0.0.0.0", port)))
            HELD.append(HELD[-1].accept())
            continue
        made = None
        while made is None:
            with contextlib.suppress(OSError):
                made = socket.create_connection(("main1", port))
            time.sleep(0.05)
        HELD.append(made)


def last(do: Callable[[], object]) -> None:
    """Let the last rank do something else."""
    if SIZE - 1 == RANK:
        do()


if CASE == "ended":
    last(lambda: sys.exit(0))
    serve()
elif CASE == "deaf":
    join() if RANK else time.sleep(1000)
elif CASE == "loopback":
    join() if RANK else serve("127.0.0.1")
elif CASE == "port":
    join() if RANK else serve(port=29501)
elif CASE == "late":
    last(lambda: time.sleep(1000))
    join() if RANK else serve()
elif CASE == "world":
    join() if RANK else serve()
elif CASE == "died":
    last(lambda: sys.exit(1))
    mesh() if SIZE > 2 else time.sleep(1000)
elif CASE == "stopped":
    mesh()
    last(lambda: os.kill(os.getpid(), signal.SIGSTOP))
    time.sleep(1000)
elif CASE == "busy":
    mesh()
    while True:
        sum(range(10_000))
elif CASE == "linked":
    mesh()
    time.sleep(1000)
