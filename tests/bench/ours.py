"""The measured side: a session through the HTTP API, as a program would ask for it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp


@dataclass
class Manager:
    """The manager's API."""

    url: str
    token: str
    http: aiohttp.ClientSession = field(init=False)

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.token}"})
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.http.close()

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Make one call; any answer of 400 or more is an error."""
        url = f"{self.url}/v1/{path}"
        async with asyncio.timeout(320), self.http.request(method, url, json=body) as answer:
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")
            return await answer.json()

    async def start(self, spec: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """Submit a session and wait until all of its ranks are released; seconds."""
        began = time.monotonic()
        made = await self.ask("POST", "sessions", spec)
        view = await self.ask("GET", f"sessions/{made['id']}/wait?until=running&timeout_s=300")
        took = time.monotonic() - began
        if view["state"] != "running":
            raise RuntimeError(f"session {made['id']} is {view['state']}: {view['reason']}")
        return dict(view), took

    async def stop(self, session: str) -> float:
        """Stop a session and wait until nothing of it is left; seconds."""
        began = time.monotonic()
        await self.ask("POST", f"sessions/{session}/stop", {"grace_s": 0})
        await self.ask("GET", f"sessions/{session}/wait?until=removed&timeout_s=300")
        return time.monotonic() - began

    async def events(self, session: str) -> list[dict[str, Any]]:
        """Everything that happened to a session, in order."""
        answer = await self.ask("GET", f"sessions/{session}/events")
        return list(answer["events"] if isinstance(answer, dict) else answer)
