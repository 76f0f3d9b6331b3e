"""An Engine API that answers as a test has written down: for what no engine does on demand."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from phalanx_agent.docker.engine import DockerEngine

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
VERSION = {"Version": "20.10", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}


def says(status: int, body: Any = None) -> Answer:
    """An answer at once; an error's body is its message."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        if body is None:
            return web.Response(status=status)
        return web.json_response({"message": body} if status >= 400 else body, status=status)

    return answer


def breaks() -> Answer:
    """The call arrives, and the connection ends without an answer."""

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return answer


def waits(bell: asyncio.Event, then: Answer) -> Answer:
    """An answer after a bell has rung."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await bell.wait()
        return await then(request)

    return answer


class Script:
    """The answers to each call, `METHOD path` without the version; the last one is for ever."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bodies: list[Any] = []
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)

    def on(self, call: str, *answers: Answer) -> None:
        """Write answers down."""
        self._answers[call].extend(answers)

    def count(self, call: str) -> int:
        """How often a call was made."""
        return self.calls.count(call)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.lstrip("/")
        path = path.partition("/")[2] if path.startswith("v1.") else path
        call = f"{request.method} {path}"
        self.calls.append(call)
        self.bodies.append(await request.json() if request.can_read_body else None)
        answers = self._answers[call]
        if not answers:
            return await says(404, f"no such call: {call}")(request)
        return await (answers.popleft() if len(answers) > 1 else answers[0])(request)


@asynccontextmanager
async def scripted(folder: Path) -> AsyncIterator[tuple[Script, DockerEngine]]:
    """An engine at a socket in the folder, and an agent's line to it."""
    script = Script()
    script.on("GET version", says(200, VERSION))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    socket = folder / "docker.sock"
    await web.UnixSite(runner, str(socket)).start()
    try:
        async with DockerEngine.open(str(socket), "test") as docker:
            yield script, docker
    finally:
        await runner.cleanup()
