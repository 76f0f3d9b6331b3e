"""Takes away all that carries our cluster's label, when this host is to have nothing of ours."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from phalanx_agent.docker import networks
from phalanx_agent.docker.call import Line, checked_id, understanding
from phalanx_agent.docker.containers import is_kernels
from phalanx_agent.docker.moments import unix_seconds
from phalanx_agent.docker.port import Unavailable
from phalanx_wire import names

_NOT_FOUND: Final = 404
_IN_USE: Final = 403
_NOT_IN_A_SWARM: Final = 503
_SWARM_BRIDGE: Final = "docker_gwbridge"


async def clear(line: Line, cluster: str) -> None:
    """Remove our containers, then our networks; networks of the swarm are its managers' to
    remove, and gone with the session that had them.
    """
    label = {"label": [f"{names.LABEL_CLUSTER}={cluster}"]}
    for entry in await line.ask(
        "GET", "containers/json", doing="listing", params={"all": "1", "filters": label}
    ):
        if names.LABEL_KERNEL not in entry["Labels"] or is_kernels(entry):
            await _remove(line, "containers", checked_id(entry["Id"]), force="1", v="1")
    for entry in await line.ask(
        "GET", "networks", doing="listing networks", params={"filters": label}
    ):
        if entry["Scope"] == "local":
            await networks.remove(line, str(entry["Id"]))


async def leave_swarm(line: Line, entered_at: float) -> None:
    """Take the engine out of its swarm, whatever its part there; in none already is fine. Engines
    keep the bridge that they make for a swarm; one that is older than that somebody has made, and
    one that is in use is not ours to remove.
    """
    try:
        await line.ask(
            "POST", "swarm/leave", what="swarm", doing="leaving it", params={"force": "1"}
        )
    except Unavailable as error:
        if error.status != _NOT_IN_A_SWARM:
            raise
    named = {"filters": {"name": [_SWARM_BRIDGE]}}
    for entry in await line.ask("GET", "networks", doing="listing networks", params=named):
        with understanding("engine", "listing networks"):
            made, since = entry["Name"] == _SWARM_BRIDGE, unix_seconds(entry["Created"])
        if made and since >= entered_at:
            await _remove(line, "networks", checked_id(entry["Id"]), but=(_NOT_FOUND, _IN_USE))


async def _remove(
    line: Line, kind: str, found_id: str, *, but: Container[int] = (_NOT_FOUND,), **params: str
) -> None:
    """Remove a thing, unless the engine says that it cannot with one of these codes."""
    try:
        await line.ask(
            "DELETE",
            f"{kind}/{found_id}",
            what=f"{kind.removesuffix('s')} {found_id[:12]}",
            doing="removing it",
            params=params,
        )
    except Unavailable as error:
        if error.status not in but:
            raise
