"""Firewall rules that keep our containers from hosts; they match interfaces `phx*` only.

Two chains: one before the host itself (INPUT), one before what is routed (DOCKER-USER, or FORWARD
where the engine has made none). A container may answer, ask the world, and reach its peers; it may
not reach this host, any host of the system, the manager, or say VXLAN or link-local to anybody.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from typing import Final

TO_HOST: Final = "PHALANX-INPUT"
TO_OTHERS: Final = "PHALANX-FORWARD"
OURS: Final = "phx+"
_CALL_S: Final = 20.0
_LINK_LOCAL: Final = "169.254.0.0/16"
_VXLAN: Final = (4789, 4790)


class GuardFailed(Exception):  # noqa: N818 - a state of the machine
    """The rules could not be set; the text says why and what to do."""


def rules(guarded: Iterable[str]) -> str:
    """Spell both chains for `iptables-restore --noflush`, which takes them all or none."""
    addresses = sorted({str(ipaddress.ip_network(address)) for address in guarded if address})
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
        self._guarded: tuple[str, ...] = ()

    async def keep(self, guarded: Iterable[str]) -> None:
        """Set the rules, or set them again: a reload of a firewall may have dropped them.

        Raises:
            GuardFailed: they could not be set.
        """
        self._guarded = tuple(guarded)
        await _run("iptables-restore", "--wait", "10", "--noflush", stdin=rules(self._guarded))
        for chain, own in ((await _forward(), TO_OTHERS), ("INPUT", TO_HOST)):
            if not await _succeeds("iptables", "--wait", "10", "-C", chain, *_jump(own)):
                await _run("iptables", "--wait", "10", "-I", chain, "1", *_jump(own))

    async def holds(self) -> bool:
        """Tell whether both chains are in force."""
        forward = await _forward()
        for chain, own in ((forward, TO_OTHERS), ("INPUT", TO_HOST)):
            if not await _succeeds("iptables", "--wait", "10", "-C", chain, *_jump(own)):
                return False
        return True

    async def remove(self) -> None:
        """Take the rules away; not there is fine."""
        for chain, own in (("DOCKER-USER", TO_OTHERS), ("FORWARD", TO_OTHERS), ("INPUT", TO_HOST)):
            await _succeeds("iptables", "--wait", "10", "-D", chain, *_jump(own))
        for own in (TO_OTHERS, TO_HOST):
            await _succeeds("iptables", "--wait", "10", "-F", own)
            await _succeeds("iptables", "--wait", "10", "-X", own)


def _jump(chain: str) -> tuple[str, ...]:
    return ("-i", OURS, "-j", chain)


async def _forward() -> str:
    """The engine asks DOCKER-USER before all of its own rules."""
    there = await _succeeds("iptables", "--wait", "10", "-n", "-L", "DOCKER-USER")
    return "DOCKER-USER" if there else "FORWARD"


async def _succeeds(*command: str) -> bool:
    code, _ = await _call(command, None)
    return code == 0


async def _run(*command: str, stdin: str | None = None) -> None:
    code, said = await _call(command, stdin)
    if code != 0:
        raise GuardFailed(
            f"{command[0]} failed with {code}: {said[:300]}. Containers could reach this host; "
            f"no work is taken until the rules hold. Is iptables there, and are we root?"
        )


async def _call(command: tuple[str, ...], stdin: str | None) -> tuple[int, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    try:
        async with asyncio.timeout(_CALL_S):
            _, said = await process.communicate(None if stdin is None else stdin.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        return 124, f"it did not end within {_CALL_S:.0f} s"
    return process.returncode or 0, said.decode(errors="replace").strip()
