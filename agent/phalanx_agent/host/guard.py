"""Firewall rules that keep our containers from hosts; they match interfaces `phx*` only.

Two chains: one before the host itself (INPUT), one before what is routed (DOCKER-USER, or FORWARD
where the engine has made none). A container may answer, ask the world, and reach its peers; it may
not reach this host, any host of the system, the manager, or say VXLAN or link-local to anybody.
All of that is IPv4: our networks are made without IPv6, so containers have none.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog

from phalanx_agent.host import probe, untracked
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
_ENGINES: Final = re.compile("-A FORWARD -j DOCKER-(?!USER).+")
_PORTS_ASKED: Final = ("PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "DOCKER")
_ENGINE_SETS_S: Final = 5.0
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

    def __init__(self) -> None:
        self._held: tuple[str, ...] | None = None  # what was asked before ours when they held
        self._engine_has_rules = False  # it was seen to

    async def keep(self, guarded: Iterable[str]) -> None:
        """Set the rules, or set them again: a reload of a firewall may have dropped them. They are
        tried from inside once, and again when they were gone or other rules are asked before them.

        Raises:
            GuardFailed: they could not be set, or do not hold.
        """
        try:
            await run(*_RESTORE, stdin=rules(guarded))
            await untracked.keep()
            before = await self._have_asked()
            _have_bridges_ask()
            if before != self._held:
                self._held = None
                await self.verify()
                self._held = before
            await self._miss_engines_rules()
        except ToolFailed as error:
            raise GuardFailed(
                f"{error}. Containers could reach this host; no work is taken until the rules "
                "hold. Are iptables, ip and unshare there, and are we root?"
            ) from error

    async def _have_asked(self) -> tuple[str, ...]:
        """Have each of our chains asked from one place; all rules that are asked before them."""
        before: list[str] = []
        for chain, own in await _hooks():
            found, jump = await _rules_of(chain), _jump_from(chain, own)
            if jump in found:
                before += found[: found.index(jump)]
            else:
                await run(*_IPTABLES, "-I", chain, "1", *_jump(own))
                if self._held is not None:
                    _LOG.warning("guard.rules-were-gone", chain=chain)
                self._held = None
            # An agent that was killed meanwhile may have asked for it at the same time.
            for _twice in range(1, found.count(jump)):
                await run(*_IPTABLES, "-D", chain, *_jump(own))
            if chain == USERS:
                before += await _have_users_asked()
        return tuple(before)

    async def _miss_engines_rules(self) -> None:
        """Look for the rules by which the engine has its own chains asked, once they were seen, or
        where it has set those in another table that go with them: a flush takes one table alone.

        Raises:
            GuardFailed: they are gone, and with them all that lets containers reach anything.
        """
        for pause_s in (0.0, _ENGINE_SETS_S):  # at its start it takes them away and sets them again
            await asyncio.sleep(pause_s)
            if any(_ENGINES.fullmatch(rule) for rule in await _rules_of("FORWARD")):
                self._engine_has_rules = True
                return
            if not (self._engine_has_rules or await _engine_translates()):
                return  # it may be told to have none
        raise GuardFailed(
            "Somebody has flushed this host's firewall, or loaded it anew: the container engine's "
            "own rules are gone, and it sets them at its start alone. Networks may carry nothing; "
            "no work is taken until the engine was restarted, which ends what runs."
        )

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
        await untracked.remove()
        for chain, own in ((USERS, TO_OTHERS), ("FORWARD", TO_OTHERS), ("INPUT", TO_HOST)):
            await succeeds(*_IPTABLES, "-D", chain, *_jump(own))
        for own in (TO_OTHERS, TO_HOST):
            await succeeds(*_IPTABLES, "-F", own)
            await succeeds(*_IPTABLES, "-X", own)


async def _engine_translates() -> bool:
    """Tell whether an engine has set its rules for ports of this host, which it does along with
    those that it has asked for what is routed.
    """
    return await succeeds(*_IPTABLES, "-t", "nat", "-C", *_PORTS_ASKED)


def _jump(chain: str) -> tuple[str, ...]:
    return ("-i", OURS, "-j", chain)


def _jump_from(chain: str, own: str) -> str:
    return " ".join(("-A", chain, *_jump(own)))


async def _rules_of(chain: str) -> list[str]:
    """The rules of a chain in their order, as iptables spells them."""
    listing = await run(*_IPTABLES, "-S", chain)
    return [line for line in listing.splitlines() if line.startswith("-A ")]


async def _hooks() -> tuple[tuple[str, str], ...]:
    """From which chain each of ours is asked. The engine asks DOCKER-USER before all of its own."""
    there = await succeeds(*_IPTABLES, "-n", "-L", USERS)
    return ((USERS if there else "FORWARD", TO_OTHERS), ("INPUT", TO_HOST))


async def _have_users_asked() -> list[str]:
    """Have DOCKER-USER asked once, and first; what is asked before it all the same. An engine takes
    its rule for that away and sets it again with every network: two networks at once leave it
    twice, and whoever dies in between leaves none. Ours that stood in for it goes.
    """
    found, rule = await _rules_of("FORWARD"), f"FORWARD -j {USERS}"
    for _once in range(found.count(_jump_from("FORWARD", TO_OTHERS))):
        await run(*_IPTABLES, "-D", "FORWARD", *_jump(TO_OTHERS))
    asked = found.count(f"-A {rule}")
    if asked == 1:
        return found[: found.index(f"-A {rule}")]
    lines = ["*filter", *[f"-D {rule}"] * asked, f"-I {rule}", "COMMIT", ""]
    try:
        await run(*_RESTORE, stdin="\n".join(lines))  # all of it or nothing
    except ToolFailed as error:
        # The engine is at it itself; what it makes of it is seen the next time.
        _LOG.info("guard.users-chain-changes", asked=asked, why=str(error))
    else:
        _LOG.warning("guard.users-chain-mended", asked=asked)
    return []


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
