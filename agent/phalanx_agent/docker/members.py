"""The members of a swarm that we have made: which are its managers, and which are gone for good."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from phalanx_agent.docker.call import Line, understanding
from phalanx_agent.docker.moments import unix_seconds
from phalanx_agent.docker.networks import checked_id_or_swarm
from phalanx_agent.docker.port import Unavailable
from phalanx_wire.names import SWARM_MANAGERS

_LOG = structlog.get_logger()
_READY: Final = "ready"


@dataclass(frozen=True, slots=True)
class Member:
    """One, as a manager of the swarm sees it.

    Attributes:
        version: of its spec; a change of it names the one that it changes.
        spec: as engines spell it.
        address: at which the others reach it.
        made_at: Unix seconds.
    """

    id: str
    version: str
    spec: dict[str, Any]
    host: str
    address: str
    state: str
    made_at: float

    @property
    def manages(self) -> bool:
        """Whether it is a manager, or shall be one."""
        return bool(self.spec["Role"] == "manager")


async def tend(line: Line) -> None:
    """Take members out of the swarm in whose place others are, and make a worker a manager where
    the swarm then survives the loss of one. One engine of a swarm does this, not all.

    An engine that was installed anew joins as another member; what it was before counts as a
    manager that is down for ever, and the swarm can do nothing once these are half of them.

    Raises:
        Unavailable: the engine did not answer; what it refuses is tried again at the next look.
    """
    found = await line.ask("GET", "nodes", what="swarm", doing="listing its members")
    with understanding("swarm", "listing its members"):
        members = [_read(entry) for entry in found]
    gone, able = replaced(members), successor(members)
    for member in gone:
        await _tried(_remove(line, member), "removed", member)
    if able is not None and not gone:
        await _tried(_give_role(line, able, "manager", "making it a manager"), "promoted", able)


def replaced(members: Sequence[Member]) -> list[Member]:
    """Find those that are down, and where a younger one of the same host's name and address is
    ready: two that live cannot both be there.
    """
    alive = {(one.host, one.address): one for one in members if one.state == _READY}
    return [
        one
        for one in members
        if one.state == "down"
        and (other := alive.get((one.host, one.address))) is not None
        and one.made_at < other.made_at
    ]


def successor(members: Sequence[Member]) -> Member | None:
    """Choose the worker that shall be a manager: the swarm has too few of them for its size, as
    one has that was made of two hosts and has grown. A manager that is down counts, for it may
    come back, and one more would make it harder for the others to agree.
    """
    ready = [one for one in members if one.state == _READY]
    if len(ready) < SWARM_MANAGERS or sum(one.manages for one in members) >= SWARM_MANAGERS:
        return None
    workers = (one for one in ready if not one.manages and one.spec["Availability"] == "active")
    return min(workers, key=lambda one: (one.made_at, one.id), default=None)


async def _remove(line: Line, member: Member) -> None:
    """Remove one that is down. A manager is made none before, and then is no part of the quorum."""
    doing = f"removing member {member.id}, which is down and was replaced"
    if member.manages:
        await _give_role(line, member, "worker", doing)
    await line.ask("DELETE", f"nodes/{member.id}", what="swarm", doing=doing, params={"force": "1"})


async def _give_role(line: Line, member: Member, role: str, doing: str) -> None:
    await line.ask(
        "POST",
        f"nodes/{member.id}/update",
        what="swarm",
        doing=doing,
        params={"version": member.version},
        body={**member.spec, "Role": role},
    )


async def _tried(change: Awaitable[None], done: str, member: Member) -> None:
    try:
        await change
    except Unavailable as error:
        if error.kind != "answered":
            raise
        _LOG.warning(f"swarm.member-not-{done}", member=member.id, why=str(error))
    else:
        _LOG.info(f"swarm.member-{done}", member=member.id, host=member.host)


def _read(entry: dict[str, Any]) -> Member:
    # A manager is reached at its own address; its status may have 0.0.0.0.
    address = (entry.get("ManagerStatus") or {}).get("Addr", "").rpartition(":")[0]
    return Member(
        checked_id_or_swarm(entry["ID"]),
        str(entry["Version"]["Index"]),
        {"Role": "worker", "Availability": "active", **entry["Spec"]},
        str(entry["Description"]["Hostname"]),
        address or entry["Status"]["Addr"],
        str(entry["Status"]["State"]),
        unix_seconds(entry["CreatedAt"]),
    )
