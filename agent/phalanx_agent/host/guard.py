"""Firewall rules that keep our containers from hosts; they match interfaces `phx*` only.

Two chains: one before the host itself (INPUT), one before what is routed (DOCKER-USER, or FORWARD
where the engine has made none). A container may answer, ask the world, and reach its peers; it may
not reach this host, any host of the system, the manager, or say VXLAN or link-local to anybody.
All of that is IPv4: our networks are made without IPv6, so containers have none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog

from phalanx_agent.host import probe
from phalanx_agent.host.tools import ToolFailed, run, succeeds
from phalanx_wire import names

_LOG = structlog.get_logger()

TO_HOST: Final = "PHALANX-INPUT"
TO_OTHERS: Final = "PHALANX-FORWARD"
OURS: Final = "phx+"
USERS: Final = "DOCKER-USER"
_IPTABLES: Final = ("iptables", "--wait", "10")
_RESTORE: Final = ("iptables-restore", "--wait", "10", "--noflush")
_LINK_LOCAL: Final = "169.254.0.0/16"
_VXLAN: Final = (4789, 4790)
_INTERFACES: Final = Path("/sys/class/net")
_BRIDGES_ASK: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


class GuardFailed(Exception):  # noqa: N818 - a state of the machine
    """The rules could not be set; the text says why and what to do."""


def rules(guarded: Iterable[str]) -> str:
    """Spell both chains for `iptables-restore --noflush`, which takes them all or none: an address
    of IPv6, which a host may well have, must not be among them.
    """
    known = {ipaddress.ip_address(address) for address in guarded if address}
    addresses = sorted(f"{one}/32" for one in known if one.version == 4)
    lines = [
        "*filter",
        f":{TO_HOST} - [0:0]",
        f":{TO_OTHERS} - [0:0]",
        f"-A {TO_HOST} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN",
        f"-A {TO_HOST} -j DROP",
        f"-A {TO_OTHERS} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN",
        f"-A {TO_OTHERS} -d {_LINK_LOCAL} -j DROP",
        *(f"-A {TO_OTHERS} -p udp --dport {port} -j DROP" for port in _VXLAN),
        *(f"-A {TO_OTHERS} -d {address} -j DROP" for address in addresses),
        f"-A {TO_OTHERS} -j RETURN",
        "COMMIT",
        "",
    ]
    return "\n".join(lines)


class Guard:
    """The rules of this host."""

    async def keep(self, guarded: Iterable[str]) -> None:
        """Set the rules, or set them again: a reload of a firewall may have dropped them. New ones
        are tried from inside.

        Raises:
            GuardFailed: they could not be set, or do not hold.
        """
        try:
            await run(*_RESTORE, stdin=rules(guarded))
            fresh = probe.was_left()  # by a process that ended before it knew
            for chain, own in await _hooks():
                asked = await _asked(chain, own)
                if asked == 0:
                    await run(*_IPTABLES, "-I", chain, "1", *_jump(own))
                    fresh = True
                # An agent that was killed meanwhile may have asked for it at the same time.
                for _twice in range(1, asked):
                    await run(*_IPTABLES, "-D", chain, *_jump(own))
                if chain == USERS:
                    await _have_users_asked()
            _have_bridges_ask()
            if fresh:
                await self.verify()
        except ToolFailed as error:
            raise GuardFailed(
                f"{error}. Containers could reach this host; no work is taken until the rules "
                "hold. Are iptables, ip and unshare there, and are we root?"
            ) from error

    async def verify(self) -> None:
        """Try from behind a bridge of ours to reach this host, and to forge a peer's frame.

        Raises:
            GuardFailed: something came through, or passed our rules by.
            ToolFailed: it could not be tried.
        """
        came = await probe.reached()
        passed_by = [chain for chain in (TO_HOST, TO_OTHERS) if not await _dropped(chain)]
        if came or passed_by:
            what = (
                f"{' and '.join(came)} reached this host" if came else "nothing reached this host"
            )
            raise GuardFailed(
                f"The firewall rules do not hold back what comes from a container: {what}, and "
                f"{' and '.join(passed_by) or 'no chain'} was not asked. Another firewall's rules "
                "may stand before ours; no work is taken until they hold."
            )

    async def holds(self) -> bool:
        """Tell whether both chains are in force."""
        for chain, own in await _hooks():
            if not await succeeds(*_IPTABLES, "-C", chain, *_jump(own)):
                return False
        return True

    async def remove(self) -> None:
        """Take the rules away; not there is fine."""
        for chain, own in ((USERS, TO_OTHERS), ("FORWARD", TO_OTHERS), ("INPUT", TO_HOST)):
            await succeeds(*_IPTABLES, "-D", chain, *_jump(own))
        for own in (TO_OTHERS, TO_HOST):
            await succeeds(*_IPTABLES, "-F", own)
            await succeeds(*_IPTABLES, "-X", own)


def _jump(chain: str) -> tuple[str, ...]:
    return ("-i", OURS, "-j", chain)


async def _asked(chain: str, own: str) -> int:
    """From how many places of a chain ours is asked."""
    listing = await run(*_IPTABLES, "-S", chain)
    return listing.splitlines().count(" ".join(("-A", chain, *_jump(own))))


async def _hooks() -> tuple[tuple[str, str], ...]:
    """From which chain each of ours is asked. The engine asks DOCKER-USER before all of its own."""
    there = await succeeds(*_IPTABLES, "-n", "-L", USERS)
    return ((USERS if there else "FORWARD", TO_OTHERS), ("INPUT", TO_HOST))


async def _have_users_asked() -> None:
    """Have DOCKER-USER asked once, and first. An engine takes its rule for that away and sets it
    again with every network: two networks at once leave it twice, and whoever dies in between
    leaves none.
    """
    rule = f"FORWARD -j {USERS}"
    asked = (await run(*_IPTABLES, "-S", "FORWARD")).splitlines().count(f"-A {rule}")
    if asked == 1:
        return
    lines = ["*filter", *[f"-D {rule}"] * asked, f"-I {rule}", "COMMIT", ""]
    try:
        await run(*_RESTORE, stdin="\n".join(lines))  # all of it or nothing
    except ToolFailed as error:
        # The engine is at it itself; what it makes of it is seen the next time.
        _LOG.info("guard.users-chain-changes", asked=asked, why=str(error))
    else:
        _LOG.warning("guard.users-chain-mended", asked=asked)


def _have_bridges_ask() -> None:
    """Have the rules asked for what goes from port to port of one bridge, too: it is by a rule that
    the engine keeps sessions apart on their way out. The engine turns that on once; whoever sets
    a host's settings anew may turn it off again, and no rule looks any different then.

    Raises:
        GuardFailed: it cannot be turned on.
    """
    if not (_INTERFACES / names.EGRESS_BRIDGE).exists():
        return
    try:
        if _BRIDGES_ASK.read_text(encoding="ascii").strip() == "1":
            return
        _BRIDGES_ASK.write_text("1\n", encoding="ascii")
    except OSError as error:
        raise GuardFailed(
            "Sessions could reach each other on their way out: the firewall is not asked for what "
            f"stays on one bridge, and {_BRIDGES_ASK} cannot be set to 1: {error.strerror}. Is the "
            "kernel's module br_netfilter loaded?"
        ) from error
    _LOG.warning("guard.bridges-mended", setting=str(_BRIDGES_ASK))


async def _dropped(chain: str) -> bool:
    """Whether a chain has dropped anything since it was set."""
    listing = await run(*_IPTABLES, "-n", "-v", "-x", "-L", chain)
    rows = [line.split() for line in listing.splitlines()[2:]]
    return any(row[2] == "DROP" and int(row[0]) > 0 for row in rows)
