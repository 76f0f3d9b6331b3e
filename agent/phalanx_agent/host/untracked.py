"""Keeps what a session's containers say to each other out of the host's table of connections.

That table is one for the whole host, and has room for some hundred thousand: one session could
fill it with packets between its own containers, and nobody's new connection would pass. No rule
needs these: a private network is let through, and held apart, by interfaces and addresses alone.
What goes to or comes from the host itself, and the way out, whose addresses are translated, are
tracked as ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

from phalanx_agent.host.tools import ToolFailed, run, succeeds
from phalanx_wire import names

_LOG = structlog.get_logger()
CHAIN: Final = "PHALANX-PRIVATE"
_SETTINGS: Final = Path("/proc/sys/net/netfilter")
_NEARLY: Final = 0.9
_TABLE: Final = ("iptables", "--wait", "10", "-t", "raw")
_RESTORE: Final = ("iptables-restore", "--wait", "10", "--noflush")
_HOOK: Final = ("PREROUTING", "-i", "phx+", "-j", CHAIN)
_RULES: Final = f"""\
*raw
:{CHAIN} - [0:0]
-A {CHAIN} -i {names.EGRESS_BRIDGE} -j RETURN
-A {CHAIN} -m addrtype ! --dst-type LOCAL -j CT --notrack
-I {" ".join(_HOOK)}
COMMIT
"""


async def keep() -> None:
    """Have it so. A host that lacks what it takes does without: sessions run there all the same."""
    if await succeeds(*_TABLE, "-C", *_HOOK):
        return
    try:
        await run(*_RESTORE, stdin=_RULES)  # all of it or nothing
    except ToolFailed as error:
        _LOG.warning("guard.connections-are-tracked", why=str(error))


async def remove() -> None:
    """Take the rules away; not there is fine."""
    await succeeds(*_TABLE, "-D", *_HOOK)
    await succeeds(*_TABLE, "-F", CHAIN)
    await succeeds(*_TABLE, "-X", CHAIN)


def crowded(settings: Path = _SETTINGS) -> tuple[str, ...]:
    """Say that the host's table of connections is nearly full; nothing while it is not, or where
    the host has none.
    """
    try:
        used, most = (
            int((settings / f"nf_conntrack_{name}").read_text(encoding="ascii"))
            for name in ("count", "max")
        )
    except (OSError, ValueError):
        return ()
    if used < most * _NEARLY:
        return ()
    said = (
        f"This host tracks nearly as many connections as it can ({most}): new ones, its own too, "
        "may be dropped, and sessions start late. Somebody here talks to very many places "
        "outside; end that, or raise net.netfilter.nf_conntrack_max."
    )
    return (said,)
