"""Starting and stopping, against the raw engine.

Each figure is a ratio of two things measured in the same run, interleaved: raw, ours, raw, ours.
The first pair is dropped. The raw side asks the Engine API for the same network, the same
containers with the same settings and the same way out, everything in parallel; "ready" for it is
that all starts have returned, for us that every rank's command has been released, which is later
by the runner's start, the mesh check and the barriers.
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from phalanx_agent.docker.containers import CAPABILITIES, LOG_OPTIONS
from phalanx_agent.host import inventory
from phalanx_lab.lab import Lab
from tests.bench import raw
from tests.bench.ours import Manager

IMAGE = "phalanx/base"
CPU, MEM, SHM, PIDS = 0.1, 64 << 20, 32 << 20, 256
TARGET = 1.10


@dataclass(frozen=True)
class Row:
    """One thing to measure; `engines` are indices of hosts, in rank order."""

    title: str
    size: int
    mode: str
    engines: tuple[int, ...]
    main_pids: int = PIDS  # a main that fills its host's share keeps the others off it


ROWS = (
    Row("4 containers, one engine", 4, "single-node", (0,) * 4),
    Row("16 containers, one engine", 16, "single-node", (0,) * 16),
    Row("4 containers, three engines", 4, "multi-node", (0, 1, 1, 2), main_pids=65400),
    Row("12 containers, three engines", 12, "multi-node", (0,) * 4 + (1,) * 4 + (2,) * 4),
)


@dataclass(frozen=True)
class Figures:
    """Seconds of one pair."""

    raw_ready: float
    our_ready: float
    raw_stop: float
    our_stop: float


def settings() -> dict[str, Any]:
    """What the agent sets on every container, without mounts."""
    nofile = inventory.largest_nofile()
    return {
        "Init": False,
        "NanoCpus": int(CPU * 1e9),
        "Memory": MEM,
        "MemorySwap": MEM,
        "ShmSize": SHM,
        "PidsLimit": PIDS + 32,
        "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES),
        "SecurityOpt": ["no-new-privileges"],
        "Ulimits": [{"Name": "nofile", "Soft": nofile, "Hard": nofile}],
        "IpcMode": "private",
        "LogConfig": {"Type": "json-file", "Config": LOG_OPTIONS},
        "RestartPolicy": {"Name": "no"},
        "DnsOptions": ["timeout:1", "attempts:1"],
    }


def spec(row: Row) -> dict[str, Any]:
    """What is asked of the manager."""
    resources = {"cpu": CPU, "mem": MEM, "shm": SHM, "pids": PIDS}
    main = {"name": "main", "resources": {**resources, "pids": row.main_pids}}
    return {
        "mode": row.mode,
        "image": IMAGE,
        "command": ["sleep", "1000"],
        "resources": resources,
        "roles": [main, {"name": "sub", "replicas": row.size - 1}],
    }


async def measure(
    row: Row, pairs: int, manager: Manager, engines: list[raw.Engine]
) -> list[Figures]:
    """Run a row's pairs; the first is not among the figures."""
    found = []
    for pair in range(pairs + 1):
        order = raw.Order(
            name=f"raw-{int(time.time() * 1000)}",
            engines=[engines[index] for index in row.engines],
            owner=engines[0],
            driver="bridge" if row.mode == "single-node" else "overlay",
            subnet="10.230.0.0/26",
            image=IMAGE,
            settings=settings(),
        )
        began = time.monotonic()
        gang = await raw.start(order)
        raw_ready = time.monotonic() - began
        began = time.monotonic()
        await raw.stop(gang)
        raw_stop = time.monotonic() - began
        view, our_ready = await manager.start(spec(row))
        our_stop = await manager.stop(view["id"])
        hosts = len({kernel["agent"] for kernel in view["kernels"]})
        if hosts != len(set(row.engines)):
            raise RuntimeError(f"{row.title}: placed on {hosts} hosts, not on as many as the raw")
        figures = Figures(raw_ready, our_ready, raw_stop, our_stop)
        print(
            f"  {row.title} {pair}/{pairs}: ready {raw_ready:.2f} | {our_ready:.2f} s,"
            f" stop {raw_stop:.2f} | {our_stop:.2f} s (raw | ours), load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        if pair:
            found.append(figures)
    return found


async def run(lab: Lab, pairs: int, rows: tuple[Row, ...]) -> dict[str, list[Figures]]:
    """Measure all rows on a running lab, one after the other."""
    async with AsyncExitStack() as stack:
        manager = await stack.enter_async_context(Manager(lab.url, lab.admin_token))
        engines = [
            await stack.enter_async_context(raw.Engine(host.engine_socket)) for host in lab.hosts
        ]
        warm = {"size": 3, "mode": "multi-node", "spread": "one-per-node", "image": IMAGE,
                "command": ["sleep", "1000"], "resources": {"cpu": CPU, "mem": MEM}}  # fmt: skip
        view, _ = await manager.start(warm)
        await manager.stop(view["id"])
        return {row.title: await measure(row, pairs, manager, engines) for row in rows}


def median(values: list[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def table(results: dict[str, list[Figures]]) -> list[str]:
    """Spell the figures as Markdown."""
    lines = [
        "| what | raw ready | ready | ratio | raw stop | stop | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, figures in results.items():
        ready = median([pair.our_ready / pair.raw_ready for pair in figures])
        stop = median([pair.our_stop / pair.raw_stop for pair in figures])
        cells = [
            f"{median([pair.raw_ready for pair in figures]):.2f} s",
            f"{median([pair.our_ready for pair in figures]):.2f} s",
            f"{ready:.2f}",
            f"{median([pair.raw_stop for pair in figures]):.2f} s",
            f"{median([pair.our_stop for pair in figures]):.2f} s",
            f"{stop:.2f}",
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines
