"""Takes away all that carries our cluster's label, when this host is to have nothing of ours."""

from __future__ import annotations

from typing import Final

from phalanx_agent.docker import networks
from phalanx_agent.docker.call import Line, checked_id
from phalanx_agent.docker.port import Unavailable
from phalanx_wire import names

_NOT_FOUND: Final = 404
_NOT_IN_A_SWARM: Final = 503


async def clear(line: Line, cluster: str) -> None:
    """Remove our containers, then our networks; networks of the swarm are its managers' to
    remove, and gone with the session that had them.
    """
    label = {"label": [f"{names.LABEL_CLUSTER}={cluster}"]}
    for entry in await line.ask(
        "GET", "containers/json", doing="listing", params={"all": "1", "filters": label}
    ):
        await _remove(line, checked_id(entry["Id"]))
    for entry in await line.ask(
        "GET", "networks", doing="listing networks", params={"filters": label}
    ):
        if entry["Scope"] == "local":
            await networks.remove(line, str(entry["Id"]))


async def leave_swarm(line: Line) -> None:
    """Take the engine out of its swarm, whatever its part there; in none already is fine."""
    try:
        await line.ask(
            "POST", "swarm/leave", what="swarm", doing="leaving it", params={"force": "1"}
        )
    except Unavailable as error:
        if error.status != _NOT_IN_A_SWARM:
            raise


async def _remove(line: Line, container_id: str) -> None:
    try:
        await line.ask(
            "DELETE",
            f"containers/{container_id}",
            what=f"container {container_id[:12]}",
            doing="removing it",
            params={"force": "1", "v": "1"},
        )
    except Unavailable as error:
        if error.status != _NOT_FOUND:
            raise
