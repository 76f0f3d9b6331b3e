"""The comparator: the Engine API doing the same work, everything in parallel, nothing else."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

API = "v1.41"


@dataclass
class Engine:
    """One Docker Engine, spoken to over its socket."""

    socket: str
    http: aiohttp.ClientSession = field(init=False)

    async def __aenter__(self) -> Self:
        connector = aiohttp.UnixConnector(self.socket, limit=0)
        self.http = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.http.close()

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Make one call; any answer of 400 or more is an error."""
        url = f"http://engine/{API}/{path}"
        async with asyncio.timeout(120), self.http.request(method, url, json=body) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {text}")
            return json.loads(text) if text.startswith(("{", "[")) else None


@dataclass(frozen=True)
class Gang:
    """What a raw start made, so that a raw stop can remove it."""

    network: str
    owner: Engine
    containers: tuple[tuple[Engine, str], ...]


@dataclass(frozen=True)
class Order:
    """What to start: one container per entry of `engines`, in rank order."""

    name: str
    engines: Sequence[Engine]
    owner: Engine
    driver: str
    subnet: str
    image: str
    settings: dict[str, Any]


def addresses(subnet: str, count: int) -> list[str]:
    """The highest addresses of a subnet, rank 0 first."""
    net = ipaddress.ip_network(subnet)
    return [str(net[-2 - rank]) for rank in range(count)]


async def start(order: Order) -> Gang:
    """Make the network, then create, connect and start all containers at once."""
    network = await order.owner.ask(
        "POST",
        "networks/create",
        {
            "Name": order.name,
            "Driver": order.driver,
            "Internal": True,
            "Attachable": order.driver == "overlay",
            "IPAM": {"Config": [{"Subnet": order.subnet}]},
        },
    )
    where = addresses(order.subnet, len(order.engines))

    async def one(rank: int, engine: Engine) -> tuple[Engine, str]:
        made = await engine.ask(
            "POST",
            f"containers/create?name={order.name}-{rank}",
            {
                "Image": order.image,
                "Cmd": ["sleep", "1000"],
                "Hostname": f"rank{rank}",
                "HostConfig": {**order.settings, "NetworkMode": network["Id"]},
                "NetworkingConfig": {
                    "EndpointsConfig": {
                        network["Id"]: {"IPAMConfig": {"IPv4Address": where[rank]}},
                    }
                },
            },
        )
        await engine.ask("POST", "networks/phx-egress/connect", {"Container": made["Id"]})
        await engine.ask("POST", f"containers/{made['Id']}/start")
        return engine, made["Id"]

    started = await asyncio.gather(*(one(rank, e) for rank, e in enumerate(order.engines)))
    return Gang(network["Id"], order.owner, tuple(started))


async def stop(gang: Gang) -> None:
    """Remove all containers by force at once, then the network."""
    await asyncio.gather(
        *(engine.ask("DELETE", f"containers/{id_}?force=1&v=1") for engine, id_ in gang.containers)
    )
    await gang.owner.ask("DELETE", f"networks/{gang.network}")
