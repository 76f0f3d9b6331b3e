"""Which network namespaces an engine knows: named after its containers' sandboxes and networks."""

from __future__ import annotations

from typing import Final

from phalanx_agent.docker.call import Line, checked_id
from phalanx_agent.docker.port import Unavailable

_OF_SANDBOX: Final = 12
"""So many digits of a sandbox's id are the name of its namespace."""

_NOT_FOUND: Final = 404


async def unknown(line: Line, names: frozenset[str]) -> frozenset[str]:
    """Of names of namespaces, tell those of no container and no network of the engine, anybody's.

    A network's is `1-` or `lb_` and the beginning of its id; what the number says is the engine's.
    """
    of_networks = {name: name.replace("_", "-").partition("-")[2] for name in names}
    of_networks = {name: beginning for name, beginning in of_networks.items() if beginning}
    left = set(names)
    if of_networks:
        found = await line.ask("GET", "networks", doing="listing networks")
        ids = [str(network["Id"]) for network in found]
        left -= {
            name
            for name, beginning in of_networks.items()
            if any(one.startswith(beginning) for one in ids)
        }
    if names - of_networks.keys():
        left -= await _of_containers(line)
    return frozenset(left)


async def _of_containers(line: Line) -> set[str]:
    """Find the names of all containers' namespaces."""
    found = await line.ask(
        "GET", "containers/json", doing="listing containers", params={"all": "1"}
    )
    known = set()
    for entry in found:
        try:
            seen = await line.ask(
                "GET",
                f"containers/{checked_id(entry['Id'])}/json",
                doing="looking at a container",
            )
        except Unavailable as error:
            if error.status != _NOT_FOUND:  # it has gone meanwhile
                raise
        else:
            known.add(str(seen["NetworkSettings"]["SandboxID"])[:_OF_SANDBOX])
    return known
