"""For how long a manager may be away (it restarts) before a request fails."""

from __future__ import annotations

from collections.abc import Callable

from phalanx_client.failure import Unavailable
from phalanx_client.transport import Transport

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 3.0


class Patience:
    """How long a manager may be away; without having met it once there is none."""

    def __init__(
        self,
        transport: Transport,
        seconds: float,
        on_wait: Callable[[Unavailable], None] | None,
    ) -> None:
        self.transport = transport
        self.seconds = seconds
        self.on_wait = on_wait
        self.met = False


class Absence:
    """One time that the manager is away: pauses that grow, up to the patience."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._waited_s = 0.0
        self._pause_s = FIRST_PAUSE_S

    async def endure(self, trouble: Unavailable) -> None:
        """Pause before the next try; raises `trouble` when the patience is used up."""
        patience = self._patience
        if not patience.met or self._waited_s >= patience.seconds:
            raise trouble
        if self._waited_s == 0 and patience.on_wait is not None:
            patience.on_wait(trouble)
        await patience.transport.pause(self._pause_s)
        self._waited_s += self._pause_s
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
