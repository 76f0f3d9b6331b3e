"""runner.conf: what the agent tells the runner of one container before it exists."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal


@dataclass(frozen=True)
class RunnerConf:
    """The settings of one container's runner.

    peers: every host name of the session in rank order, its own included; NAME, or NAME:PORT where
        a peer's ssh port differs from ssh_port (containers that share a host's network).
    ssh_limit: ssh servers at a time, 1 to 1024; a connection above it is closed.
    address, interface: the private address, and the network interface that must carry it; both
        empty on the host's network.
    master_port: checked at the start to be free; None in every container but main1.
    workdir: of the command and of ssh sessions; empty as the image has it.
    """

    kernel: str
    ssh_port: int = 2200
    ssh_limit: int = 64
    address: str = ""
    interface: str = ""
    peers: tuple[str, ...] = ()
    master_port: int | None = None
    workdir: str = ""
    command: Literal["run", "idle"] = "run"
    mesh_timeout_s: int = 60
    linger_s: int = 30
    grace_s: int = 10

    def render(self) -> str:
        """The file's text. Raises ValueError where a value can't be written on one line."""
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            if any(mark in text for mark in ("\n", "\0")):
                raise ValueError(f"{field.name}={text!r} has a line end in it")
            lines.append(f"{field.name}={text}\n")
        return "".join(lines)
