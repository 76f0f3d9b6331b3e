"""Private networks and the way out: made with explicit subnets, found before made."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any, Final

from phalanx_agent.docker.call import Line, checked_id
from phalanx_agent.docker.port import NetworkFacts, Unavailable
from phalanx_wire import names
from phalanx_wire.control import Network
from phalanx_wire.ids import SessionId

EGRESS: Final = "phx-egress"
OPTION_BRIDGE: Final = "com.docker.network.bridge.name"
_SUBNET_WITHIN_S: Final = 1.0
_REMOVE_WITHIN_S: Final = 30.0
_NOT_FOUND: Final = 404
_DYNAMIC_PREFIX: Final = 2
"""The engine takes addresses for itself from the lowest quarter; ours lie at the upper end."""


async def listing(line: Line, cluster: str) -> tuple[NetworkFacts, ...]:
    """List the private networks of a cluster."""
    found = await line.ask(
        "GET",
        "networks",
        doing="listing networks",
        params={"filters": {"label": [f"{names.LABEL_CLUSTER}={cluster}"]}},
    )
    return tuple(_facts(entry) for entry in found if names.LABEL_SESSION in entry["Labels"])


async def create(
    line: Line, cluster: str, session: SessionId, attempt: int, network: Network
) -> str:
    """Make a private network with its subnet, or find it made. Engines of this age make as many
    of one name as they are asked for, so what is there is looked for first.
    """
    what = f"network {network.name}"
    ours = await _ours_by_name(line, cluster, network.name)
    try:
        made = (
            ours[0]
            if ours
            else await line.ask(
                "POST",
                "networks/create",
                what=what,
                doing="making it",
                body=_body(network, names.labels(cluster, session, attempt)),  # type: ignore[arg-type]
            )
        )
    except Unavailable as error:
        if error.kind == "not_sent" or not (
            again := await _ours_by_name(line, cluster, network.name)
        ):
            raise
        made = again[0]
    network_id = str(made["Id"])
    if not await _has_subnet(line, network_id):
        await remove(line, network_id)
        raise Unavailable(
            what,
            "making it",
            f"The engine gave it no subnet: {network.subnet} overlaps one of its own, or one that "
            "it has not given back yet.",
            kind="answered",
            status=403,
            passing=True,
        )
    return network_id


def _body(network: Network, labels: dict[str, str]) -> dict[str, Any]:
    subnet = ipaddress.ip_network(network.subnet)
    pool: dict[str, Any] = {"Subnet": network.subnet}
    options: dict[str, str] = {}
    if network.driver == "overlay":
        pool["IPRange"] = str(next(subnet.subnets(prefixlen_diff=_DYNAMIC_PREFIX)))
    else:
        session = SessionId(labels[names.LABEL_SESSION])
        attempt = int(labels[names.LABEL_ATTEMPT])
        options[OPTION_BRIDGE] = names.bridge_name(session, attempt)
    return {
        "Name": network.name,
        "CheckDuplicate": True,
        "Driver": network.driver,
        "Internal": True,
        "EnableIPv6": False,
        "Attachable": network.driver == "overlay",
        "IPAM": {"Driver": "default", "Config": [pool]},
        "Options": options,
        "Labels": labels,
    }


async def _has_subnet(line: Line, network_id: str) -> bool:
    """A swarm with no room answers "created" and gives no subnet; it may come a little later."""
    deadline = asyncio.get_running_loop().time() + _SUBNET_WITHIN_S
    while True:
        seen = await line.ask("GET", f"networks/{network_id}", doing="looking at a network")
        if (seen["IPAM"].get("Config") or [{}])[0].get("Subnet"):
            return True
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.05)


async def remove(line: Line, network_id: str) -> None:
    """Remove a network; for a while the engine may see endpoints that are on their way out."""
    deadline = asyncio.get_running_loop().time() + _REMOVE_WITHIN_S
    wait = 0.05
    while True:
        try:
            await line.ask(
                "DELETE",
                f"networks/{checked_id_or_swarm(network_id)}",
                what=f"network {network_id[:12]}",
                doing="removing it",
            )
        except Unavailable as error:
            if error.status == _NOT_FOUND:
                return
            if error.kind != "answered" or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(wait)
            wait = min(wait * 2, 2.0)
        else:
            return


def checked_id_or_swarm(text: str) -> str:
    """A swarm's ids are 25 characters of lower-case letters and digits, an engine's 64 hex."""
    return text if text.isalnum() and text.islower() and len(text) == 25 else checked_id(text)


async def ensure_egress(line: Line, cluster: str, subnet: str) -> str:
    """Make the host's way out, or find it made; an unused one with another subnet is replaced.

    Raises:
        Unavailable: somebody else's network has its name, or as for all calls.
    """
    for entry in await _by_name(line, EGRESS):
        seen = await line.ask("GET", f"networks/{entry['Id']}", doing="looking at a network")
        as_ours = (seen["Options"] or {}).get(OPTION_BRIDGE) == names.EGRESS_BRIDGE
        fits = (seen["IPAM"].get("Config") or [{}])[0].get("Subnet") == subnet
        if as_ours and (fits or seen["Containers"]):
            return str(entry["Id"])
        if not as_ours or seen["Labels"].get(names.LABEL_CLUSTER) != cluster:
            raise Unavailable(
                f"network {EGRESS}",
                "using it as the way out",
                f"It was not made by this agent; remove it: docker network rm {EGRESS}.",
                kind="answered",
                status=409,
            )
        await remove(line, str(entry["Id"]))
    made = await line.ask(
        "POST",
        "networks/create",
        what=f"network {EGRESS}",
        doing="making it",
        body={
            "Name": EGRESS,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Config": [{"Subnet": subnet}]},
            "Options": {
                OPTION_BRIDGE: names.EGRESS_BRIDGE,
                "com.docker.network.bridge.enable_icc": "false",
                "com.docker.network.bridge.enable_ip_masquerade": "true",
            },
            "Labels": {names.LABEL_CLUSTER: cluster},
        },
    )
    return str(made["Id"])


async def _ours_by_name(line: Line, cluster: str, name: str) -> list[dict[str, Any]]:
    found = await _by_name(line, name)
    return [entry for entry in found if entry["Labels"].get(names.LABEL_CLUSTER) == cluster]


async def _by_name(line: Line, name: str) -> list[dict[str, Any]]:
    """The engine's filter matches parts of names."""
    found = await line.ask(
        "GET", "networks", doing="looking for a network", params={"filters": {"name": [name]}}
    )
    return [entry for entry in found if entry["Name"] == name]


def _facts(entry: dict[str, Any]) -> NetworkFacts:
    labels = entry["Labels"]
    pools = entry["IPAM"].get("Config") or [{}]
    return NetworkFacts(
        id=entry["Id"],
        name=entry["Name"],
        session=SessionId(labels[names.LABEL_SESSION]),
        attempt=int(labels.get(names.LABEL_ATTEMPT, "0")),
        driver=entry["Driver"],
        subnet=pools[0].get("Subnet", ""),
    )
