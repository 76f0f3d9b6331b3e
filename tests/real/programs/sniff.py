"""Listen to every frame on an interface; print the first of some texts that each one holds.

Arguments: interface, texts. Says `ready` first, and goes on until killed.
"""

from __future__ import annotations

import socket
import sys

ETH_P_ALL = 3
interface, *texts = sys.argv[1:]
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as tap:
    tap.bind((interface, 0))
    print("ready", flush=True)
    while True:
        frame = tap.recv(65535)
        for text in texts:
            if text.encode() in frame:
                print(text, flush=True)
                break
