"""Try to reach addresses; print those that answered, one a line.

Arguments are `KIND:HOST:PORT`. A `tcp` address answers when it accepts or refuses a connection, a
`say` address when it is TCP and greets whoever calls, a `udp` address when it sends something back:
what is on the way may accept connections and complain of packets for hosts that are not there.
"""

from __future__ import annotations

import concurrent.futures
import socket
import sys

PATIENCE = 2.0


def answers(target: str) -> bool:
    kind, host, port = target.split(":")
    type_ = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, type_) as probe:
        probe.settimeout(PATIENCE)
        try:
            probe.connect((host, int(port)))
            if kind == "udp":
                probe.send(b"phalanx-probe")
            return kind == "tcp" or len(probe.recv(64)) > 0
        except ConnectionRefusedError:
            return kind == "tcp"
        except OSError:
            return False


with concurrent.futures.ThreadPoolExecutor(64) as pool:
    for target, answered in zip(sys.argv[1:], pool.map(answers, sys.argv[1:]), strict=True):
        if answered:
            print(target)
