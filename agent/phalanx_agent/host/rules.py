"""Firewall rules that an engine has set for the bridges of sessions' private networks.

An engine that was killed while it made a network sets up bridge and rules again at each start, and
has no network of them; who removes such a bridge removes these as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from phalanx_agent.host import bridges
from phalanx_agent.host.tools import run

SAVE: Final = ("iptables-save",)
RESTORE: Final = ("iptables-restore", "--wait", "10", "--noflush")
_APPENDS, _DELETES = "-A ", "-D "


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its table, its text as `iptables-save` writes it, and the bridge that it names."""

    table: str
    text: str
    bridge: str

    @property
    def name(self) -> str:
        """As an administrator looks for it."""
        return f"{self.table} {self.text}"


async def of_no_bridge() -> frozenset[Rule]:
    """Find those that name a session's bridge which is not on the host.

    Raises:
        ToolFailed: rules or interfaces cannot be listed.
    """
    naming = naming_bridges(await run(*SAVE))
    if not naming:
        return frozenset()
    links = json.loads(await run(*bridges.IP, "-json", "link", "show") or "[]")
    there = {link["ifname"] for link in links}
    return frozenset(rule for rule in naming if rule.bridge not in there)


def naming_bridges(listing: str) -> frozenset[Rule]:
    """Read the rules that name a session's bridge off a listing by `iptables-save`."""
    found, table = set(), ""
    for line in listing.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(_APPENDS):
            named = (word for word in line.split() if bridges.is_of_session(word))
            found |= {Rule(table, line, bridge) for bridge in named}
    return frozenset(found)


async def remove(rule: Rule) -> None:
    """Remove one; of several with the same text the first.

    Raises:
        ToolFailed: it does not go, or is gone.
    """
    text = _DELETES + rule.text.removeprefix(_APPENDS)
    await run(*RESTORE, stdin=f"*{rule.table}\n{text}\nCOMMIT\n")
