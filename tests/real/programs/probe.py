"""Try to reach addresses; print those that answered, one a line.

Arguments are `tcp:HOST:PORT` and `udp:HOST:PORT`. A TCP address answers when it accepts or refuses
a connection; a UDP one when anything comes back, be it that nobody listens there.
"""

from __future__ import annotations

import concurrent.futures
import socket
import sys

PATIENCE = 2.0


def answers(target: str) -> bool:
    kind, host, port = target.split(":")
    type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, type_) as probe:
        probe.settimeout(PATIENCE)
        try:
            probe.connect((host, int(port)))
            if kind == "udp":
                probe.send(b"phalanx-probe")
                probe.recv(64)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True


with concurrent.futures.ThreadPoolExecutor(64) as pool:
    for target, answered in zip(sys.argv[1:], pool.map(answers, sys.argv[1:]), strict=True):
        if answered:
            print(target)
