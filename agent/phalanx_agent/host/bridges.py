"""Bridges that an engine has made for sessions' private networks, as the host sees them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from phalanx_agent.host.tools import run

IP: Final = ("ip",)
_OF_SESSIONS: Final = re.compile(r"phx[a-z2-7]{8}[0-9]{1,4}")
"""As `names.bridge_name` spells them; the way out is called otherwise."""


def is_of_session(interface: str) -> bool:
    """Tell the bridge of a session's network from other interfaces, by its name."""
    return _OF_SESSIONS.fullmatch(interface) is not None


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge: its name, and the number by which the kernel tells it from one made anew."""

    name: str
    number: int


async def empty() -> frozenset[Bridge]:
    """Find those to which nothing is attached.

    Raises:
        ToolFailed: interfaces cannot be listed.
    """
    return without_ports(await run(*IP, "-json", "-details", "link", "show"))


def without_ports(listing: str) -> frozenset[Bridge]:
    """Read them off a listing by `ip -json -details`."""
    links = json.loads(listing or "[]")
    masters = {link.get("master") for link in links}
    return frozenset(
        Bridge(link["ifname"], link["ifindex"])
        for link in links
        if (link.get("linkinfo") or {}).get("info_kind") == "bridge"
        and is_of_session(link["ifname"])
        and link["ifname"] not in masters
    )


async def remove(bridge: Bridge) -> None:
    """Remove one.

    Raises:
        ToolFailed: it does not go.
    """
    await run(*IP, "link", "delete", "dev", bridge.name, "type", "bridge")
