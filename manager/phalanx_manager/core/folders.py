"""Whether hosts of a session have folders of their own where its ranks expect one for all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from phalanx_manager.core.model import Kernel, SessionRow
from phalanx_wire.ids import AgentId

_NAMED: Final = 4


def unshared(row: SessionRow) -> tuple[str, ...]:
    """Say of each such folder who has which, as sentences. Only of sessions that mean to go on from
    what they have saved; for others a folder of each host's own, as for scratch, is as good.
    """
    spec = row.session.spec
    if not spec.requeue and spec.warn_signal is None:
        return ()
    owners: dict[tuple[str, str], dict[str, AgentId]] = {}
    for kernel in row.kernels:
        for source, target, place in _places(row, kernel):
            if kernel.agent is not None:
                owners.setdefault((source, target), {}).setdefault(place, kernel.agent)
    return tuple(
        _sentence(source, target, list(places.values()))
        for (source, target), places in owners.items()
        if len(places) > 1
    )


def _places(row: SessionRow, kernel: Kernel) -> Iterator[tuple[str, str, str]]:
    """Walk what a kernel may write: where it is on the host, in the container, and which it is."""
    for role in row.session.spec.roles or ():
        if role.name == kernel.role:
            for mount in role.mounts or ():
                place = kernel.folders.get(mount.target, "")
                if place and not mount.read_only:
                    yield mount.source, mount.target, place


def _sentence(source: str, target: str, agents: list[AgentId]) -> str:
    hosts = list(map(str, agents[:_NAMED]))
    if len(agents) > _NAMED:
        hosts.append(f"{len(agents) - _NAMED} more")
    named = f"{', '.join(hosts[:-1])} and {hosts[-1]}"
    return (
        f"folder {target} is not shared: {named} each have a folder {source} of their own, on a "
        "disk of theirs; what one rank saves there the others do not find, nor does a next attempt "
        "on another host; mount a folder of a file system that all hosts have, such as NFS"
    )
