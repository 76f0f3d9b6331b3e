"""What an engine that has died left on its host, and that none knows any more: network namespaces,
mounted, bridges of sessions' networks, and first layers of containers that it was making, mounted.

They bear nobody's mark, or only our name, and are known by their state. Namespaces: in the engine's
own folder, no process in it, of no container and no network that the engine has. Bridges: named as
ours are, nothing attached, of no network that the engine has. And all that for a while: an engine
notes a container's namespace before it mounts it, and a network as soon as its bridge is made. It
ends both within moments of their last use. First layers: mounted in the engine's own folder for
half a minute, where an engine that answers needs them for an instant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from phalanx_agent.docker.port import Docker
from phalanx_agent.host import bridges, layers, namespaces
from phalanx_agent.host.bridges import Bridge
from phalanx_agent.host.layers import Layer
from phalanx_agent.host.namespaces import Namespace
from phalanx_agent.host.tools import ToolFailed

_LOG = structlog.get_logger()
_Leftover = Namespace | Bridge | Layer
STAYS_S: Final = 5.0
"""Who is nobody's for so long is a dead engine's."""

LAYER_STAYS_S: Final = 30.0
"""An engine on a slow disk may need more than an instant."""

SOON_FOR_S: Final = 60.0
"""An engine that is back has its sessions' networks until these have ended."""


class Leftovers:
    """What was nobody's at the last look, and since when."""

    def __init__(self, docker: Docker, clock: Callable[[], float]) -> None:
        self._docker = docker
        self._clock = clock
        self._since: dict[_Leftover, float] = {}
        self._back_at = clock()

    def engine_is_back(self) -> None:
        """Look often for a while: it has died, or this process begins."""
        self._back_at = self._clock()

    async def look(self) -> bool:
        """Remove what has been nobody's for long enough; whether to look again soon.

        Raises:
            Unavailable: the engine did not say what it knows.
        """
        folder = self._docker.namespaces_in()
        if not folder:  # no container has run here since this process began
            return False
        found = await namespaces.empty(folder)
        unknown = await self._docker.unknown_namespaces(frozenset(one.name for one in found))
        nobodys: set[_Leftover] = {one for one in found if one.name in unknown}
        nobodys |= await self._bridges()
        nobodys |= await layers.in_the_making(self._docker.layers_in())
        now = self._clock()
        self._since = {one: self._since.get(one, now) for one in nobodys}
        for one, since in tuple(self._since.items()):
            if now - since >= (LAYER_STAYS_S if isinstance(one, Layer) else STAYS_S):
                await self._remove(folder, one)
        return bool(self._since) or (bool(found) and now - self._back_at < SOON_FOR_S)

    async def _bridges(self) -> set[Bridge]:
        try:
            found = await bridges.empty()
        except ToolFailed as error:
            _LOG.warning("bridges.unavailable", why=str(error))
            return set()
        if not found:
            return set()
        unknown = await self._docker.unknown_bridges(frozenset(one.name for one in found))
        return {one for one in found if one.name in unknown}

    async def _remove(self, folder: str, leftover: _Leftover) -> None:
        what = type(leftover).__name__.lower()
        try:
            match leftover:
                case Bridge():
                    await bridges.remove(leftover)
                case Layer():
                    await layers.remove(self._docker.layers_in(), leftover)
                case Namespace():
                    await namespaces.remove(folder, leftover)
        except ToolFailed as error:
            _LOG.warning("leftover.stays", kind=what, name=leftover.name, why=str(error))
            return
        del self._since[leftover]
        _LOG.warning("leftover.removed", kind=what, name=leftover.name)
