"""Which ports of its host a kernel on the host's network gets."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from phalanx_wire.control import HostNetwork
from phalanx_wire.ids import SessionId


def choose(
    offer: HostNetwork, taken: Collection[int], count: int, session: SessionId
) -> tuple[int, ...] | None:
    """Find so many free ports, or None when fewer are left.

    Where it looks first depends on the session, so that a port that was given back rests as long
    as it can.
    """
    size = offer.last_port - offer.first_port + 1
    start = int.from_bytes(hashlib.sha256(session.encode()).digest()[:8], "big")
    chosen: list[int] = []
    for offset in range(size):
        if len(chosen) == count:
            break
        port = offer.first_port + (start + offset) % size
        if port not in taken:
            chosen.append(port)
    return tuple(chosen) if len(chosen) == count else None


def spell(offer: HostNetwork) -> str:
    """Spell a host's range as its configuration does: `61000-61999`."""
    return f"{offer.first_port}-{offer.last_port}"
