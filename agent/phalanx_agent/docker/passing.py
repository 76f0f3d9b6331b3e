"""Refusals of engines that pass by themselves, by the words that moby has for them.

Most say that something is on its way out or on its way in: a network that was removed a moment ago
still has its addresses, one that was just made is not known on this host yet, a swarm elects.
"""

from __future__ import annotations

import re
from typing import Final

_PASSING: Final = (
    "Pool overlaps with other one",  # addresses of a network that is going
    "conflicts with network",  # its bridge, which is going too
    "Address already in use",  # an endpoint's, in the engine or in the swarm
    "already exists in network",  # an endpoint of a container that is going
    "has active endpoints",
    "marked for removal",
    "already in progress",
    "Could not attach to network",
    "does not have a leader",
    "lost leader status",
    "not a swarm manager",
    "node is being initialized",
)
_UNHEARD_OF: Final = re.compile("[Nn]etwork [a-z0-9]+ not found")
"""A swarm's network, of which this host has not heard yet."""


def passes(hint: str) -> bool:
    """Tell whether an engine that refused with these words may not, when asked a little later."""
    return _UNHEARD_OF.search(hint) is not None or any(words in hint for words in _PASSING)
