"""Sockets in the folder that a container has mounted read-only: the agent listens at them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_BACKLOG = 64


def bind(directory: Path, name: str) -> socket.socket:
    """Listens at directory/name, in place of a dead agent's socket, if there is one.

    By the directory's descriptor: a socket's path may have 108 bytes, a session's has more.

    Raises OSError when the directory can't be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.path.lexists(directory / name):
                os.unlink(name, dir_fd=handle)
            listener.bind(f"/proc/self/fd/{handle}/{name}")
            os.chmod(directory / name, 0o666)  # noqa: S103 - the container may run as any uid
        finally:
            os.close(handle)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
