"""What an engine that has died left on its host, and that none knows any more.

It bears nobody's mark, or only our name or a container's id, and is known by its state. Network
namespaces: mounted in the engine's own folder, no process in it, of no container and no network
that the engine has. Bridges: named as ours are, nothing attached, of no network that the engine
has. Firewall rules: naming such a bridge, which is gone. Interfaces: named as engines name theirs,
and never handed over to a container or a network; the end of a tunnel that stays keeps its number
from the next network. First layers of containers that it was making: mounted in its own folder,
where an engine that answers needs them for an instant; and layers of which nothing but the mount is
there. Its helpers: for a container in which
nothing runs, and that the engine does not have. Records of these: of no container that the engine
has, and whose id no process bears. And all that for a while: an engine notes a container and its
namespace before it makes anything for it, and a network as soon as its bridge is made, and it ends
all these within moments of their last use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from phalanx_agent.docker.port import Docker, Folders, Possessions
from phalanx_agent.host import bridges, layers, namespaces, records, remains, rules, shims
from phalanx_agent.host.bridges import Bridge
from phalanx_agent.host.layers import Layer
from phalanx_agent.host.namespaces import Namespace
from phalanx_agent.host.records import Record
from phalanx_agent.host.remains import Link
from phalanx_agent.host.rules import Rule
from phalanx_agent.host.shims import Shim
from phalanx_agent.host.tools import ToolFailed

_LOG = structlog.get_logger()
_Leftover = Namespace | Bridge | Link | Rule | Layer | Shim | Record
STAYS_S: Final = 5.0
"""Who is nobody's for so long is a dead engine's."""

LAYER_STAYS_S: Final = 30.0
"""An engine on a slow disk may need more than an instant."""

SOON_FOR_S: Final = 60.0
"""An engine that is back has its sessions' networks until these have ended."""

_LAST_LOOKS: Final = 8
"""These take longer than any of it has to stay."""

_OF_SANDBOX: Final = 12
"""So many digits of a sandbox's id are the name of its namespace."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of them.

    Attributes:
        stays_s: how long it is nobody's before it is removed.
        find: those on the host that may be nobody's.
        is_had: whether the engine has what one is of.
        remove: raises `ToolFailed`.
    """

    stays_s: float
    find: Callable[[Folders], Awaitable[frozenset[Any]]]
    is_had: Callable[[Possessions, Any], bool]
    remove: Callable[[Any], Awaitable[None]]


def _has_namespace(engine: Possessions, one: Namespace) -> bool:
    if one.network:
        return any(network.startswith(one.network) for network in engine.networks)
    return any(sandbox[:_OF_SANDBOX] == one.name for sandbox in engine.sandboxes)


_KINDS: Final[dict[type[_Leftover], _Kind]] = {
    Namespace: _Kind(
        STAYS_S,
        lambda folders: namespaces.empty(folders.run and f"{folders.run}/netns"),
        _has_namespace,
        namespaces.remove,
    ),
    Bridge: _Kind(
        STAYS_S,
        lambda _folders: bridges.empty(),
        lambda engine, one: one.name in engine.bridges,
        bridges.remove,
    ),
    Link: _Kind(
        STAYS_S,
        lambda _folders: remains.half_made(),
        lambda _engine, _one: False,
        remains.remove_link,
    ),
    Rule: _Kind(
        STAYS_S,
        lambda _folders: rules.of_no_bridge(),
        lambda engine, one: one.bridge in engine.bridges,
        rules.remove,
    ),
    Layer: _Kind(
        LAYER_STAYS_S,
        lambda folders: layers.needless(folders.layers),
        lambda _engine, _one: False,
        layers.remove,
    ),
    Shim: _Kind(
        STAYS_S,
        lambda folders: shims.idle(folders.run),
        lambda engine, one: one.container in engine.containers,
        shims.remove,
    ),
    Record: _Kind(
        STAYS_S,
        lambda folders: records.unborne(folders.run),
        lambda engine, one: one.container in engine.containers,
        records.remove,
    ),
}


class Leftovers:
    """What was nobody's at the last look, and since when."""

    def __init__(
        self, docker: Docker, clock: Callable[[], float], run_folder: Callable[[str, str], str]
    ) -> None:
        """Args: run_folder: as `Workshop` has it."""
        self._docker = docker
        self._clock = clock
        self._run_folder = run_folder
        self._since: dict[_Leftover, float] = {}
        self._back_at = clock()

    def engine_is_back(self) -> None:
        """Look often for a while: it has died, or this process begins."""
        self._back_at = self._clock()

    async def look(self) -> bool:
        """Remove what has been nobody's for long enough; whether to look again soon.

        Raises:
            Unavailable: the engine did not say what it has.
        """
        found = await self._found()
        nobodys = await self._nobodys(found)
        now = self._clock()
        self._since = {one: self._since.get(one, now) for one in nobodys}
        for one, since in tuple(self._since.items()):
            if now - since >= _KINDS[type(one)].stays_s:
                await self._remove(one)
        return bool(self._since) or (bool(found) and now - self._back_at < SOON_FOR_S)

    async def clear(self) -> None:
        """Remove all that is nobody's, because this host is left; the log tells what does not go.

        Raises:
            Unavailable: the engine did not say what it has.
        """
        for _look in range(_LAST_LOOKS):
            await self.look()
            if not self._since:
                return
            await asyncio.sleep(STAYS_S)

    async def _found(self) -> set[_Leftover]:
        """Find what may be nobody's; nothing while the engine has not told where it has what."""
        folders, found = self._docker.folders(), set[_Leftover]()
        folders = replace(folders, run=self._run_folder(folders.layers, folders.run))
        if folders == Folders():
            return found
        for kind, one in _KINDS.items():
            try:
                found |= await one.find(folders)
            except ToolFailed as error:
                _LOG.warning("leftovers.unavailable", kind=kind.__name__.lower(), why=str(error))
        return found

    async def _nobodys(self, found: set[_Leftover]) -> set[_Leftover]:
        """Ask the engine which of them it does not have."""
        if not found:
            return found
        of_containers = any(isinstance(one, Namespace) and not one.network for one in found)
        engine = await self._docker.possessions(sandboxes=of_containers)
        return {one for one in found if not _KINDS[type(one)].is_had(engine, one)}

    async def _remove(self, leftover: _Leftover) -> None:
        what = type(leftover).__name__.lower()
        try:
            await _KINDS[type(leftover)].remove(leftover)
        except ToolFailed as error:
            _LOG.warning("leftover.stays", kind=what, name=leftover.name, why=str(error))
            return
        del self._since[leftover]
        _LOG.warning("leftover.removed", kind=what, name=leftover.name)
