"""What a seed decides before anything runs: the size of the cluster, and its bad luck."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from phalanx_wire.ids import AgentId, ClusterName
from tests.sim.dice import Dice

ENGINE_CALLS: Final = (
    "info", "inventory", "image", "pull", "create_network", "remove_network", "ensure_egress",
    "create_container", "start", "connect", "inspect", "kill", "remove", "write_archive",
    "swarm", "swarm_init", "swarm_join", "swarm_leave", "swarm_canary", "clear",
)  # fmt: skip

DEFAULT: Final = ClusterName("default")
SIDE: Final = ClusterName("side")
"""The cluster of the hosts that are retired."""

LEAVING: Final = tuple(
    f"engine.{name}.{when}" for name in ("clear", "swarm_leave") for when in ("before", "after")
)
"""Points of an agent that takes all away."""

SCRATCH_WRITES: Final = ("make", "put", "mark", "write_lease")

AGENT_POINTS: Final = (
    *(f"engine.{name}.{when}" for name in ENGINE_CALLS for when in ("before", "after")),
    *(f"scratch.{name}.{when}" for name in SCRATCH_WRITES for when in ("before", "after")),
    "scratch.clear.before", "scratch.clear.inside", "scratch.clear.after",
    "logs.keep.before", "logs.keep.after",
    "uploads.fetch.before", "uploads.fetch.after",
    "runner.send.before", "runner.send.after",
    "link.observed.before", "link.observed.after",
    "scratch.note.before", "scratch.note.after",
    "leave.clear",
)  # fmt: skip

MANAGER_POINTS: Final = (
    "store.commit.before", "store.commit.inside", "store.commit.after",
    "link.goals.before", "link.goals.after",
)  # fmt: skip
"""Where processes may die: before and after each touch of the world."""


@dataclass(frozen=True)
class Climate:
    """One seed's cluster and its luck. Chances are per call, or per message.

    Attributes:
        gpus: of each agent.
        storm_s: for how long users ask and things break.
        crashes: (role, point, how many times it is passed before it kills).
        delay_s: longest delay of a message.
        wild: the link loses, doubles and reorders single messages, which TCP never does.
        slow_s: longest pull of an image.
        skew_s: how wrong a process's wall clock is at most.
        managers: of one database; one of them leads.
        drains: how many hosts are taken out of service for a while.
        host_ports: how many ports a host gives to containers on its own network; 0 lets none there.
        retires: how many of the last hosts are a cluster of their own, which is removed in the
            midst of all.
        strikes: how many big things (partitions, restarts, kills) happen in the storm.
    """

    agents: int
    gpus: tuple[int, ...]
    sessions: int
    storm_s: float
    lost_after_s: float
    crashes: tuple[tuple[str, str, int], ...] = ()
    delay_s: float = 0.002
    wild: bool = False
    loss: float = 0.0
    engine_fault: float = 0.0
    disk_fault: float = 0.0
    runner_fault: float = 0.0
    slow_s: float = 2.0
    skew_s: float = 0.0
    strikes: int = 0
    eager_swarm: bool = False
    drains: int = 0
    retires: int = 0
    host_ports: int = 0
    managers: int = 1

    @property
    def retired(self) -> tuple[AgentId, ...]:
        """The hosts of the cluster that is removed."""
        numbers = range(self.agents - self.retires, self.agents)
        return tuple(AgentId(f"host{number}") for number in numbers)

    @property
    def calm(self) -> bool:
        """Nothing breaks: then sessions end as their commands do, however slow images and however
        wrong clocks are.
        """
        return not (
            self.crashes or self.wild or self.engine_fault or self.disk_fault
            or self.runner_fault or self.strikes
        )  # fmt: skip


def climate(seed: int) -> Climate:
    """Draw a seed's climate: one in eight is calm, the others are each bad in ways of their own."""
    dice, rest = Dice(seed, "climate"), Dice(seed, "the rest of the climate")
    calm = Dice(seed, "what is slow and wrong and breaks nothing")
    agents = dice.whole(1, 5)
    quiet = Climate(
        agents=agents,
        gpus=tuple(dice.pick((0, 0, 2, 4)) for _ in range(agents)),
        sessions=dice.whole(2, 8),
        storm_s=dice.between(50, 180),
        lost_after_s=dice.pick((40.0, 40.0, 60.0, 300.0)),
        eager_swarm=dice.chance(0.3),
        drains=rest.pick((0, 0, 1, 2)),
        host_ports=rest.pick((0, 6, 40)),
        managers=rest.pick((1, 1, 2)),
    )
    clusters = Dice(seed, "clusters")
    if agents > 1 and clusters.chance(0.3):
        quiet = replace(quiet, retires=1 if agents == 2 else clusters.pick((1, 2, 2)))
    if quiet.managers > 1:  # whatever comes of a change of the lead has to fit into the storm
        quiet = replace(quiet, lost_after_s=20.0)
    if dice.chance(0.125):
        slow_s, skew_s = calm.skewed(1.0, 90.0), calm.pick((0.0, 5.0, 3600.0))
        return replace(quiet, slow_s=slow_s, skew_s=skew_s)
    return replace(
        quiet,
        crashes=tuple(_crash(dice) for _ in range(dice.whole(0, 6))),
        delay_s=dice.skewed(0.001, 3.0),
        wild=dice.chance(0.4),
        loss=dice.between(0.0, 0.15),
        engine_fault=dice.pick((0.0, 0.0, 0.01, 0.05)),
        disk_fault=dice.pick((0.0, 0.0, 0.0, 0.02)),
        runner_fault=dice.pick((0.0, 0.0, 0.02, 0.1)),
        slow_s=dice.skewed(1.0, 90.0),
        skew_s=dice.pick((0.0, 0.0, 5.0, 3600.0)),
        strikes=dice.whole(0, 6),
    )


def _crash(dice: Dice) -> tuple[str, str, int]:
    """Choose a point of all points alike, so that rare ones are met as often as common ones."""
    points = [("manager", point) for point in MANAGER_POINTS for _ in range(4)]
    points += [("agent", point) for point in AGENT_POINTS]
    role, point = dice.pick(points)
    return role, point, dice.pick((1, 1, 2, 3, 5, 8, 13, 30))
