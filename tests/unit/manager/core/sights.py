"""What runs in a session's containers, made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phalanx_manager.core import why
from phalanx_manager.core.model import SessionRow
from phalanx_wire.api import Finding
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.look import Look, Process, Socket
from tests.support.house import NOW, agent, row, with_session

S = KernelState
PORT = 12345
MAIN, SUB = "10.213.0.40", "10.213.0.41"
RUNNER = Process(1, 0, "/opt/phalanx/bin/phalanx-init", "S", 1, 0.0, 9.0, ours=True)
SSH = Socket("listen", "0.0.0.0", 2200, pid=1)
LISTENS = Socket("listen", "0.0.0.0", PORT, pid=7)


def process(command: str = "python3 train.py", **fields: Any) -> Process:
    given = {"pid": 7, "parent": 1, "state": "S", "threads": 1, "cpu_s": 1.5, "age_s": 70.0}
    return Process(command=command, **{**given, **fields})


def look(*sockets: Socket, of: Sequence[Process] | None = None, **fields: Any) -> Look:
    processes = (RUNNER, *((process(),) if of is None else of))
    return Look(processes, (SSH, *sockets), **fields)


def running(seats: str = "ab", **fields: Any) -> SessionRow:
    return with_session(row(seats, S.RUNNING, **fields), state="running", started_at=NOW)


def joined(rank: int, port: int = PORT) -> Socket:
    return Socket("connected", f"10.213.0.{40 + rank}", 50000 + rank, MAIN, port, pid=7)


def judged(
    one: SessionRow, looks: Mapping[int, Look], missing: Mapping[int, str] | None = None
) -> tuple[Finding, ...]:
    agents = {AgentId(name): agent(name) for name in "abc"}
    return why.findings(why.scene(one, looks, missing or {}), agents, NOW)


def first(one: SessionRow, *looks: Look) -> tuple[str, tuple[int, ...], bool]:
    found = judged(one, dict(enumerate(looks)))[0]
    return found.code, found.ranks, found.certain
