"""Answer on a port, TCP and UDP, until killed; says `ready` once it does.

Arguments: port, and the address, if not all.
"""

from __future__ import annotations

import socket
import sys
import threading

place = (sys.argv[2] if len(sys.argv) > 2 else "0.0.0.0", int(sys.argv[1]))
stream = socket.create_server(place)
packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
packets.bind(place)


def accept() -> None:
    while True:
        with stream.accept()[0] as caller:
            caller.sendall(b"hello")


threading.Thread(target=accept, daemon=True).start()
print("ready", flush=True)
while True:
    data, sender = packets.recvfrom(2048)
    packets.sendto(data, sender)
