"""What a soak does, thrown from a seed before it begins."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.real.failing import BASE, WITNESS
from tests.support import failing_agent, failing_manager
from tests.support.failpoints import Point, points

FaultKind = Literal["point", "kill", "freeze", "cut", "engine", "containerd"]
WEIGHTS: Mapping[FaultKind, int] = {
    "point": 20,
    "kill": 8,
    "freeze": 6,
    "cut": 6,
    "engine": 2,
    "containerd": 1,
}
OF_OURS: Mapping[FaultKind, int] = {
    kind: n for kind, n in WEIGHTS.items() if kind not in ("engine", "containerd")
}
"""What may befall our own daemons and their links."""
CODES = (0, 0, 1, 7, 42)


@dataclass(frozen=True)
class Wish:
    """One session: how many ranks, how it ends, and when somebody stops it, if at all."""

    size: int
    spread: str
    code: int
    lasts_s: float
    egress: bool
    stop_after_s: float | None

    def spec(self, share: str) -> dict[str, Any]:
        """What is asked of the manager."""
        script = f"{WITNESS}sleep {self.lasts_s:.2f}; exit {self.code}"
        return {
            "image": BASE,
            "kind": "batch",
            "size": self.size,
            "spread": self.spread,
            "command": ["sh", "-c", script],
            "env_profile": "default",  # RANK, also where there is one container only
            "egress": self.egress,
            "mounts": [{"source": share, "target": "/share", "read_only": False}],
            "resources": {"cpu": 1, "mem": "64M"},
            "grace_s": 1,
            "lost_after_s": 300,
        }


@dataclass(frozen=True)
class Fault:
    """Something goes wrong `after_s` seconds after the last thing that went wrong."""

    kind: FaultKind
    after_s: float
    target: int  # a host's number; 0 is the manager
    lasts_s: float
    point: Point

    def __str__(self) -> str:
        where = f"host{self.target}" if self.target else "manager"
        if self.kind == "point":
            return f"{where} {self.point.call} {self.point.when} {self.point.mode}"
        return f"{where} {self.kind}"


def wish(dice: random.Random, hosts: int) -> Wish:
    """Throw a session."""
    size = dice.choice((1, 1, 1, 2, 2, 3, 4))
    return Wish(
        size=size,
        spread="one-per-node" if 1 < size <= hosts and dice.random() < 0.5 else "pack",
        code=dice.choice(CODES),
        lasts_s=dice.uniform(0, 1.0),
        egress=dice.random() < 0.3,
        stop_after_s=dice.uniform(0, 3.0) if dice.random() < 0.2 else None,
    )


def fault(dice: random.Random, hosts: int, weights: Mapping[FaultKind, int]) -> Fault:
    """Throw a fault, of kinds as often as they weigh."""
    (kind,) = dice.choices(list(weights), list(weights.values()))
    target = dice.randint(0 if kind in ("point", "kill", "freeze") else 1, hosts)
    calls = failing_agent.CALLS if target else failing_manager.CALLS
    return Fault(
        kind=kind,
        after_s=dice.uniform(0.2, 2.0),
        target=target,
        lasts_s=dice.uniform(0.2, 2.5),
        point=dice.choice(points(calls)),
    )
