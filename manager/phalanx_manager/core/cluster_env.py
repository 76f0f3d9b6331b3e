"""What every container finds in its environment."""

from __future__ import annotations

from collections.abc import Sequence

from phalanx_manager.core.model import Kernel, Session
from phalanx_wire.api import EnvVar


def rank_env(session: Session, kernels: Sequence[Kernel], rank: int) -> tuple[EnvVar, ...]:
    """Spell the environment of one rank, sorted by name; `kernels` are all, in rank order.

    What depends on the placement (`LOCAL_RANK`, `PHALANX_SUBNET`, ...) is left out until the
    session is placed.
    """
    raise NotImplementedError
