"""Answer on one port, TCP and UDP, until killed; says `ready` once it does."""

from __future__ import annotations

import socket
import sys
import threading

port = int(sys.argv[1])
stream = socket.create_server(("0.0.0.0", port))
packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
packets.bind(("0.0.0.0", port))


def accept() -> None:
    while True:
        with stream.accept()[0] as caller:
            caller.sendall(b"hello")


threading.Thread(target=accept, daemon=True).start()
print("ready", flush=True)
while True:
    data, sender = packets.recvfrom(2048)
    packets.sendto(data, sender)
