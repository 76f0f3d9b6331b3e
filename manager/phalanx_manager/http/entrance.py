"""What stands between a request and the doors: whether this manager leads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from phalanx_manager.http import health
from phalanx_manager.http.auth import Turnstile
from phalanx_manager.http.doors import Doors
from phalanx_manager.http.problems import Refused, refused

_WITHOUT_DOORS: Final = ("/healthz", "/v1/openapi.json")
_SOON: Final = {"Retry-After": "1"}


@dataclass(slots=True)
class Entrance:
    """Lets requests in to the doors of a manager that leads, and to none while it stands by.

    Attributes:
        leader: URL of the API of the manager that leads; empty when it is not known.
        why: why this one does not lead, a sentence.
    """

    leader: str = ""
    why: str = "this manager is starting"
    _inside: tuple[Doors, Turnstile] | None = None
    _serving: set[asyncio.Task[object]] = field(default_factory=set)

    @classmethod
    def to(cls, doors: Doors) -> Entrance:
        """Make one that leads to these doors."""
        entrance = cls()
        entrance.open(doors)
        return entrance

    def open(self, doors: Doors) -> None:
        """Lead: let requests in."""
        self._inside = doors, Turnstile(doors.rates, doors.clock)

    def close(self) -> None:
        """Lead no more: what is being served ends, because what it says may not be true now."""
        self._inside = None
        for task in self._serving:
            task.cancel()

    @contextmanager
    def enter(self, path: str) -> Iterator[tuple[Doors, Turnstile]]:
        """Go in, for as long as this manager leads.

        Raises:
            Refused: it does not; `not_leader`, or `standby` of a monitor's question.
        """
        if self._inside is None:
            raise self._elsewhere(path)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - requests are served by tasks
        self._serving.add(task)
        try:
            yield self._inside
        finally:
            self._serving.discard(task)

    def answer(self, request: web.Request) -> web.Response | None:
        """Answer what needs no doors, while there are none."""
        if self._inside is not None or request.path not in _WITHOUT_DOORS:
            return None
        if request.path == "/healthz":
            return web.Response(text="ok\n")
        return web.Response(body=request.app[health.DOCUMENT], content_type="application/json")

    def _elsewhere(self, path: str) -> Refused:
        hint = f"ask the one at {self.leader}" if self.leader else "ask another, or try again"
        code = "standby" if path == "/readyz" else "not_leader"
        refusal = refused(code, 503, self.why, hint=hint)
        refusal.headers.update(_SOON)
        return refusal
