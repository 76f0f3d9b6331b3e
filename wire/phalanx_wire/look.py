"""What an agent sees of a running container from outside: the answer to a `stream.LookCall`.

Nothing runs in the container for it. What is here comes from processes that may lie: texts are
cut and printable, lists are bounded, and a reader takes no more than `MAX_BYTES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

MAX_PROCESSES: Final = 512
MAX_SOCKETS: Final = 1024
MAX_REACH: Final = 32
MAX_TEXT: Final = 200
MAX_BYTES: Final = 1 << 20

RENDEZVOUS: Final = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")
"""Variables that are read of a process, and no others: the rest is its own business."""

SocketState = Literal["listen", "connecting", "connected"]
Answer = Literal["open", "refused", "silent", "no route", "untried"]


class Process(msgspec.Struct, frozen=True, omit_defaults=True):
    """One process of a container.

    Attributes:
        pid, parent: as numbered in the container; the parent is 0 when it is outside.
        command: its arguments, or its name in brackets.
        state: of Linux: R runs, S sleeps, D waits for a device, T is stopped, Z has ended.
        waits: the kernel's function that it sleeps in; empty when unknown.
        cpu_s: that it has used since its start.
        cores: that it used during the look, 1.0 is one core.
        ours: it is the runner's or its ssh server's.
        variables: `RENDEZVOUS` as it was started with them.
    """

    pid: int
    parent: int
    command: str
    state: str
    threads: int
    cpu_s: float
    age_s: float
    cores: float = 0.0
    waits: str = ""
    ours: bool = False
    variables: Mapping[str, str] = {}


class Socket(msgspec.Struct, frozen=True, omit_defaults=True):
    """One TCP socket of a container.

    Attributes:
        local, remote: IPv4 or IPv6 addresses as text; what is mapped is told as IPv4.
        pid: one that has it open, as numbered in the container; 0 when unknown.
    """

    state: SocketState
    local: str
    local_port: int
    remote: str = ""
    remote_port: int = 0
    pid: int = 0


class Reach(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether a peer's ssh port answers from inside this container.

    Attributes:
        answer: `refused`: the way is there, the port is not; `untried`: the host has no
            descriptors left.
    """

    rank: int
    answer: Answer


class Look(msgspec.Struct, frozen=True, omit_defaults=True):
    """One container at one moment.

    Attributes:
        more: there are more processes or sockets than are told.
    """

    processes: tuple[Process, ...]
    sockets: tuple[Socket, ...]
    reach: tuple[Reach, ...] = ()
    more: bool = False
