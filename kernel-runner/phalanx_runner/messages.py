"""The messages between a runner and its agent: JSON objects, one a line.

A runner is not trusted: user code runs beside it. Whatever arrives becomes an event with sane
values or a Malformed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

PROTOCOL = 1
LINE_LIMIT = 4096  # bytes, with the line's end
FENCED_CODE = 121
"""A runner's exit code when its lease ran out before the command had ended."""
_TEXT_LIMIT = 1024


@dataclass(frozen=True)
class Stamp:
    """seq counts a runner's events from 1; t is in microseconds since 1970, by the container."""

    seq: int
    t: int


@dataclass(frozen=True)
class Hello:
    """The first line of every connection; last_seq is that of the newest event."""

    proto: int
    kernel: str
    last_seq: int


@dataclass(frozen=True)
class Boot:
    """The runner is there; pid is 1, uid and gid are those of the container."""

    stamp: Stamp
    pid: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Ready:
    """The ssh port accepts connections."""

    stamp: Stamp
    port: int


@dataclass(frozen=True)
class MeshOk:
    """Every peer was reached by name, after so many milliseconds."""

    stamp: Stamp
    ms: int


@dataclass(frozen=True)
class MeshFailed:
    """peers: the names that were not reached, as many as fit in a message."""

    stamp: Stamp
    peers: tuple[str, ...]
    ms: int


@dataclass(frozen=True)
class Started:
    """pid is that of the command inside the container; 0 where the container idles."""

    stamp: Stamp
    pid: int


@dataclass(frozen=True)
class Exited:
    """The command has ended: code as a shell would tell it (128 + signal), signal 0 if by none.

    oom_kills: so many processes of the container were ended for want of memory; 0 if not known.
    """

    stamp: Stamp
    code: int
    signal: int
    oom_kills: int = 0


@dataclass(frozen=True)
class RunnerError:
    """what: conf, interface, ssh-port, fork, exec or lease. All but exec end the container, lease
    at once.
    """

    stamp: Stamp
    what: str
    detail: Mapping[str, str | int]


@dataclass(frozen=True)
class Warned:
    """what: master-port (with port), command (one that is none) or fork."""

    stamp: Stamp
    what: str
    detail: Mapping[str, str | int]


@dataclass(frozen=True)
class SshLog:
    """A line of an ssh server, without marks that a terminal would mind."""

    stamp: Stamp
    msg: str


@dataclass(frozen=True)
class Signalled:
    """count: 1 if the command's process group got the signal, 0 if there is no command."""

    stamp: Stamp
    signal: int
    count: int


@dataclass(frozen=True)
class Pong:
    """The answer to a ping."""

    stamp: Stamp


@dataclass(frozen=True)
class Bye:
    """The last event: the runner ends with this code."""

    stamp: Stamp
    code: int


@dataclass(frozen=True)
class Malformed:
    """A line that is no event of the protocol; why is for the log."""

    why: str


Stamped = (
    Boot
    | Ready
    | MeshOk
    | MeshFailed
    | Started
    | Exited
    | RunnerError
    | Warned
    | SshLog
    | Signalled
    | Pong
    | Bye
)
Event = Hello | Stamped


class _Fields:
    """A message's members, read with their type. Raises ValueError."""

    def __init__(self, members: dict[str, object]) -> None:
        self._members = members

    def number(self, name: str, default: int | None = None) -> int:
        value = self._members.get(name, default)
        if type(value) is not int or not 0 <= value < 1 << 62:
            raise ValueError(f"{name} is no number")
        return value

    def text(self, name: str) -> str:
        value = self._members.get(name)
        if not isinstance(value, str) or len(value) > _TEXT_LIMIT or not value.isprintable():
            raise ValueError(f"{name} is no text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._members.get(name)
        if not isinstance(value, list):
            raise ValueError(f"{name} is no list")  # noqa: TRY004 - the peer's fault, not ours
        return tuple(_Fields({name: item}).text(name) for item in value)

    def stamp(self) -> Stamp:
        if not self.number("seq"):
            raise ValueError("seq is 0")
        return Stamp(self.number("seq"), self.number("t"))

    def detail(self) -> Mapping[str, str | int]:
        """All members that are texts or numbers, but for those that every event has."""
        others = {k: v for k, v in self._members.items() if k not in ("ev", "seq", "t", "what")}
        return MappingProxyType(
            {
                name: self.text(name) if isinstance(value, str) else self.number(name)
                for name, value in others.items()
            }
        )


_READERS: Mapping[str, Callable[[_Fields], Event]] = {
    "hello": lambda f: Hello(f.number("proto"), f.text("kernel"), f.number("last_seq")),
    "boot": lambda f: Boot(f.stamp(), f.number("pid"), f.number("uid"), f.number("gid")),
    "ready": lambda f: Ready(f.stamp(), f.number("port")),
    "mesh-ok": lambda f: MeshOk(f.stamp(), f.number("ms")),
    "mesh-failed": lambda f: MeshFailed(f.stamp(), f.texts("peers"), f.number("ms")),
    "started": lambda f: Started(f.stamp(), f.number("pid")),
    "exited": lambda f: Exited(
        f.stamp(), f.number("code"), f.number("signal"), f.number("oom_kills", default=0)
    ),
    "error": lambda f: RunnerError(f.stamp(), f.text("what"), f.detail()),
    "warning": lambda f: Warned(f.stamp(), f.text("what"), f.detail()),
    "sshlog": lambda f: SshLog(f.stamp(), f.text("msg")),
    "signalled": lambda f: Signalled(f.stamp(), f.number("signal"), f.number("count")),
    "pong": lambda f: Pong(f.stamp()),
    "bye": lambda f: Bye(f.stamp(), f.number("code")),
}


def parse(line: bytes) -> Event | Malformed:
    """One line, with or without its end. Never raises."""
    if len(line) > LINE_LIMIT:
        return Malformed(f"{len(line)} bytes")
    try:
        members = json.loads(line)
        if not isinstance(members, dict):
            return Malformed("no object")
        reader = _READERS.get(str(members.get("ev")))
        if reader is None:
            return Malformed("unknown event")
        return reader(_Fields(members))
    except (ValueError, RecursionError) as error:
        return Malformed(str(error) or type(error).__name__)


def mesh() -> bytes:
    """Check every peer by name; answered by MeshOk or MeshFailed."""
    return b'{"op":"mesh"}\n'


def start() -> bytes:
    """Start the command; answered by Started. A second one is ignored."""
    return b'{"op":"start"}\n'


def stop(signal: int, grace_ms: int) -> bytes:
    """End the container: the signal to the command, KILL to everything after the grace."""
    return b'{"op":"stop","signal":%d,"grace_ms":%d}\n' % (signal, grace_ms)


def signal(number: int) -> bytes:
    """Send the command a signal; answered by Signalled."""
    return b'{"op":"signal","signal":%d}\n' % number


def exit() -> bytes:  # noqa: A001 - the protocol's name
    """The end of lingering: all that was to be fetched from the container has been fetched."""
    return b'{"op":"exit"}\n'


def ping() -> bytes:
    """Answered by Pong."""
    return b'{"op":"ping"}\n'
