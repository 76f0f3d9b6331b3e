"""The engine as a member of a swarm."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any, Final

from phalanx_agent.docker import networks
from phalanx_agent.docker.call import Line
from phalanx_agent.docker.port import Unavailable
from phalanx_wire import names
from phalanx_wire.control import SwarmReport

SWARM_PORT: Final = 2377
_CANARY_SUBNET: Final = "192.0.2.0/29"  # set aside for documentation: nobody routes it
_CANARY_WITHIN_S: Final = 5.0
_JOIN_WITHIN_S: Final = 60.0


async def report(line: Line) -> SwarmReport:
    """Ask for the engine's part in a swarm."""
    said = await line.ask("GET", "info", doing="asking for its state")
    swarm = said["Swarm"]
    state, control = swarm["LocalNodeState"], bool(swarm["ControlAvailable"])
    tokens = {"Worker": "", "Manager": ""}
    if control:
        tokens = (await line.ask("GET", "swarm", doing="asking for join tokens"))["JoinTokens"]
    return SwarmReport(
        state=state,
        swarm_id="" if state == "inactive" else _swarm_id(said),
        node_id=swarm["NodeID"],
        control=control,
        address=swarm["NodeAddr"],
        worker_token=tokens["Worker"],
        manager_token=tokens["Manager"],
        problem=swarm["Error"],
    )


def _swarm_id(said: dict[str, Any]) -> str:
    """Name the swarm in a way that all its nodes agree on: only managers are told its id, but
    every node has the certificate of its authority.
    """
    certificate = Path(said["DockerRootDir"]) / "swarm/certificates/swarm-root-ca.crt"
    try:
        return hashlib.sha256(certificate.read_bytes()).hexdigest()[:25]
    except OSError:
        return str((said["Swarm"].get("Cluster") or {}).get("ID", ""))


async def init(line: Line, address: str) -> None:
    """Begin a swarm at this host's address."""
    await _tolerant(
        line,
        "init",
        {"ListenAddr": f"0.0.0.0:{SWARM_PORT}", "AdvertiseAddr": address, "DataPathAddr": address},
    )


async def join(line: Line, address: str, remotes: tuple[str, ...], token: str) -> None:
    """Join a swarm."""
    await _tolerant(
        line,
        "join",
        {
            "ListenAddr": f"0.0.0.0:{SWARM_PORT}",
            "AdvertiseAddr": address,
            "DataPathAddr": address,
            "RemoteAddrs": list(remotes),
            "JoinToken": token,
        },
    )


async def _tolerant(line: Line, verb: str, body: dict[str, Any]) -> None:
    try:
        await line.ask(
            "POST",
            f"swarm/{verb}",
            what="swarm",
            doing=f"trying to {verb}",
            body=body,
            within_s=_JOIN_WITHIN_S,
        )
    except Unavailable as error:
        if "already part of a swarm" not in error.hint:
            raise


async def canary(line: Line, cluster: str) -> None:
    """Make and remove a network: reads say that all is well long after writes have ceased to work.

    Raises:
        Unavailable: the swarm cannot make networks now.
    """
    name = f"phx-canary-{cluster}"
    try:
        async with asyncio.timeout(_CANARY_WITHIN_S):
            made = await line.ask(
                "POST",
                "networks/create",
                what="swarm",
                doing="making a network to try it",
                body={
                    "Name": name,
                    "CheckDuplicate": True,
                    "Driver": "overlay",
                    "Internal": True,
                    "Attachable": True,
                    "IPAM": {"Driver": "default", "Config": [{"Subnet": _CANARY_SUBNET}]},
                    "Labels": {names.LABEL_CLUSTER: cluster},
                },
            )
    except TimeoutError as error:
        hint = "The swarm does not answer; has it lost most of its managers?"
        raise Unavailable("swarm", "making a network to try it", hint) from error
    except Unavailable as error:
        left = await line.ask(
            "GET", "networks", doing="listing", params={"filters": {"name": [name]}}
        )
        for entry in left:
            await networks.remove(line, entry["Id"])
        if not left:
            raise error from None
    else:
        await networks.remove(line, made["Id"])
