"""The ways to the other hosts of a session, tried before anything of it is started."""

from __future__ import annotations

from phalanx_agent.core import neighbours, recipe
from phalanx_agent.core.refused import Refused
from phalanx_agent.core.seen import Created
from phalanx_agent.loops.case import Case
from phalanx_agent.loops.workshop import Workshop


async def reach(case: Case, workshop: Workshop) -> None:
    """Try them. The other hosts are up: their containers have just been made.

    Raises:
        Refused: one does not answer.
    """
    gang = case.aim.gang
    if not gang.hosts or not isinstance(case.seen.container, Created):
        return
    own = recipe.own_member(case.aim.assignment, gang)
    hosts = neighbours.to_try(gang, own)
    silent = await workshop.silent(tuple(hosts.values())) if hosts else frozenset()
    apart = {agent: address for agent, address in hosts.items() if address in silent}
    if apart:
        raise Refused(neighbours.apart(own.agent, apart), "hosts-apart")
