"""runner.conf: what the agent tells the runner of one container before it exists."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

_PLAIN = re.compile(r"[A-Za-z0-9._:@%/-]*")  # goes into messages and command lines as it is
_TEXT_LIMIT = 128
_NAME_LIMIT = 253
_PEER_LIMIT = 1024
_RANGES = {
    "ssh_port": (1, 65535),
    "ssh_limit": (1, 1024),
    "master_port": (1, 65535),
    "mesh_timeout_s": (1, 86400),
    "linger_s": (0, 86400),
    "grace_s": (0, 86400),
}


@dataclass(frozen=True)
class RunnerConf:
    """The settings of one container's runner.

    peers: every host name of the session in rank order, its own included; NAME, or NAME:PORT where
        a peer's ssh port differs from ssh_port (containers that share a host's network).
    ssh_limit: ssh servers at a time, 1 to 1024; a connection above it is closed.
    address, interface: the private address, and the network interface that must carry it; both
        empty on the host's network.
    mesh_timeout_s: for how long peers are looked for. After an engine's restart, or a cut, the
        engines of a swarm need up to a minute, sometimes two, until they know each other again.
    master_port: checked at the start to be free; None in every container but main1.
    """

    kernel: str
    ssh_port: int = 2200
    ssh_limit: int = 64
    address: str = ""
    interface: str = ""
    peers: tuple[str, ...] = ()
    master_port: int | None = None
    mesh_timeout_s: int = 180
    linger_s: int = 30
    grace_s: int = 10

    def render(self) -> str:
        """The file's text. Raises ValueError with the name of a setting that is wrong."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in settings.items() if value is not None}
        wrong = [f"{name}={value!r}" for name, value in given.items() if not _fits(name, value)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} can't be told to a runner")
        texts = {name: ",".join(v) if name == "peers" else v for name, v in given.items()}
        return "".join(f"{name}={text}\n" for name, text in texts.items())


def _fits(name: str, value: str | int | tuple[str, ...]) -> bool:
    match value:
        case int():
            low, high = _RANGES[name]
            return low <= value <= high
        case str():
            least = 1 if name == "kernel" else 0
            return least <= len(value) <= _TEXT_LIMIT and _PLAIN.fullmatch(value) is not None
        case _:
            return len(value) <= _PEER_LIMIT and all(map(_is_peer, value))


def _is_peer(text: str) -> bool:
    name, colon, port = text.partition(":")
    fits = 1 <= len(name) <= _NAME_LIMIT and _PLAIN.fullmatch(name) is not None
    return fits and (not colon or (port.isdecimal() and 1 <= int(port) <= 65535))
