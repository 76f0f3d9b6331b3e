"""For how long a manager may be away (it restarts) before a request fails."""

from __future__ import annotations

from collections.abc import Callable

from phalanx_client.failure import Away, Broken, Unavailable
from phalanx_client.transport import Transport

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 3.0


class Patience:
    """How long a manager may be away; without having met it once there is none."""

    def __init__(
        self,
        transport: Transport,
        seconds: float,
        on_wait: Callable[[Unavailable | Away], None] | None,
    ) -> None:
        self.transport = transport
        self.seconds = seconds
        self.on_wait = on_wait
        self.met = False


class Absence:
    """One time that the manager is away: pauses that grow, up to the patience.

    Args of the constructor:
        heard_s: how long to go on, at least, from when a request may have been heard.

    Attributes:
        heard: a request may have been heard that was not answered.
    """

    def __init__(self, patience: Patience, heard_s: float = 0.0) -> None:
        self._patience = patience
        self._heard_s = heard_s
        self.heard = False
        self._waited_s = 0.0
        self._pause_s = FIRST_PAUSE_S

    async def endure(self, trouble: Unavailable | Away) -> None:
        """Pause before the next try; raises `trouble` when the patience is used up."""
        patience = self._patience
        self.heard = self.heard or isinstance(trouble, Broken | Away)
        most_s = max(
            patience.seconds if patience.met else 0.0, self._heard_s if self.heard else 0.0
        )
        if self._waited_s >= most_s:
            raise trouble
        if self._waited_s == 0 and patience.on_wait is not None:
            patience.on_wait(trouble)
        await patience.transport.pause(self._pause_s)
        self._waited_s += self._pause_s
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
