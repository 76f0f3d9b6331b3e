"""All that an engine has, anybody's: by this what it left behind is told from what it uses."""

from __future__ import annotations

from typing import Any, Final

from phalanx_agent.docker.call import Line, checked_id, understanding
from phalanx_agent.docker.networks import OPTION_BRIDGE
from phalanx_agent.docker.port import Possessions, Unavailable

_NOT_FOUND: Final = 404


async def all_of(line: Line, *, sandboxes: bool) -> Possessions:
    """List it; sandboxes take a look at each container."""
    networks = await line.ask("GET", "networks", doing="listing networks")
    params = {"all": "1"}
    containers = await line.ask("GET", "containers/json", doing="listing containers", params=params)
    with understanding("engine", "listing what it has"):
        ids = frozenset(str(one["Id"]) for one in containers)
        bridges = ((one.get("Options") or {}).get(OPTION_BRIDGE) for one in networks)
        return Possessions(
            networks=frozenset(str(one["Id"]) for one in networks),
            bridges=frozenset(str(name) for name in bridges if name),
            containers=ids,
            sandboxes=frozenset([await _sandbox(line, one) for one in ids] if sandboxes else ()),
        )


async def _sandbox(line: Line, container_id: str) -> str:
    """Look for a container's network namespace; empty where it has gone meanwhile."""
    try:
        seen: dict[str, Any] = await line.ask(
            "GET", f"containers/{checked_id(container_id)}/json", doing="looking at a container"
        )
    except Unavailable as error:
        if error.status != _NOT_FOUND:
            raise
        return ""
    return str(seen["NetworkSettings"]["SandboxID"])
