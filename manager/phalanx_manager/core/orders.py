"""How much an agent has to be told: all its goals are one message, and that has a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from phalanx_manager.core.model import Kernel, SessionRow, Snapshot
from phalanx_wire.codec import MAX_GOALS_BYTES
from phalanx_wire.ids import AgentId
from phalanx_wire.slots import spell_bytes

MOST_BYTES: Final = MAX_GOALS_BYTES // 2
"""Of what users write for the containers of one agent: commands, environments, mounts. The rest is
for what we add, much of which is the same for many and is packed.
"""


def over(snapshot: Snapshot, row: SessionRow, agents: Sequence[AgentId]) -> frozenset[AgentId]:
    """Find the agents that would have to be told too much if a gang's ranks were there."""
    told = Counter[AgentId]()
    for agent, words in _words(row, zip(row.kernels, agents, strict=True)):
        told[agent] += words
    for other in snapshot.rows():
        held = ((one, one.agent) for one in other.kernels if one.holds and one.agent in told)
        for agent, words in _words(other, ((one, agent) for one, agent in held if agent)):
            told[agent] += words
    return frozenset(agent for agent, words in told.items() if words > MOST_BYTES)


def too_much(agents: Collection[AgentId]) -> str:
    """Say that a session waits for agents that have heard too much, and what helps."""
    return (
        f"with it the commands, environments and mounts of all containers on "
        f"{', '.join(sorted(agents))} would be more than the {spell_bytes(MOST_BYTES)} that an "
        "agent can be told; put them into a file, or spread the session over more agents"
    )


def _words(
    row: SessionRow, placed: Iterable[tuple[Kernel, AgentId]]
) -> Iterable[tuple[AgentId, int]]:
    """Measure what a session's user has written for each of its kernels, in bytes."""
    spec = row.session.spec
    roles = {role.name: role for role in spec.roles or ()}
    measured: dict[str, int] = {}
    for kernel, agent in placed:
        if kernel.role not in measured:
            written = (roles.get(kernel.role, spec), spec.slurm)
            measured[kernel.role] = len(msgspec.json.encode(written))
        yield agent, measured[kernel.role]
