"""Sockets inside a container's network, without a process in it and without a port on the host."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CLONE_NEWNET: Final = 0x40000000


class ProcessGone(Exception):  # noqa: N818 - a state of the machine
    """The process has ended, and with it what was held of it."""


@dataclass(frozen=True, slots=True)
class ProcessNetwork:
    """The network that a process is in.

    Attributes:
        process: its folder in /proc, open: what is read through it is never another process's.
        network: the network itself, open: it stays the same whatever becomes of the process.
    """

    process: int
    network: int

    def still_lives(self) -> bool:
        """Tell whether the process has not ended yet: its number cannot be another's until then."""
        try:
            os.stat("ns/net", dir_fd=self.process)
        except OSError:
            return False
        return True

    def tcp_socket(self) -> socket.socket:
        """Make a socket there for a connection, which does not block.

        Raises:
            OSError: as for `open_socket`.
        """
        made = self.open_socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        return made

    def open_socket(self, family: int, kind: int) -> socket.socket:
        """Make a socket there. A socket belongs to the network that it was made in for ever.

        The thread that enters the network ends at once, since nothing leads it back; making a
        socket takes less than a millisecond, so it is waited for.

        Raises:
            OSError: the network cannot be entered, or there are no descriptors left.
        """
        made: list[socket.socket | OSError] = []

        def make() -> None:
            try:
                _enter(self.network)
                made.append(socket.socket(family, kind))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=make, name="inside")
        thread.start()
        thread.join()
        (result,) = made
        if isinstance(result, OSError):
            raise result
        return result


@contextmanager
def network_of(pid: int) -> Iterator[ProcessNetwork]:
    """Hold the network of a process. Whose process it is has to be asked after this, and then
    `still_lives`: until then the number may have been given to another.

    Raises:
        ProcessGone: there is no such process.
    """
    with contextlib.ExitStack() as held:
        try:
            process = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, process)
            network = os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
            held.callback(os.close, network)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGone(f"process {pid} has ended") from error
        yield ProcessNetwork(process, network)


def _enter(network: int) -> None:
    """Move this thread into a network; needs CAP_SYS_ADMIN."""
    if _LIBC.setns(network, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def lives(pid: int) -> bool:
    """Tell whether a process of this host is there and has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
