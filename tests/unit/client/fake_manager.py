"""A manager at the HTTP seam: a real server in a thread, whose answers a test writes down."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from phalanx_wire.api import KernelView, Problem, SessionState, SessionView
from phalanx_wire.ids import AgentId, SessionId
from phalanx_wire.spec import RoleSpec, SessionSpec

Answer = web.StreamResponse | Callable[[web.Request], Awaitable[web.StreamResponse]]
ID = SessionId("aaaabbbbcccc")
TOKEN = "phx_secret"


@dataclass
class Heard:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeManager:
    """Answers by method and path; a list is used up one by one, its last entry stays."""

    answers: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    url: str = ""

    def on(self, method: str, path: str, *answers: Any) -> None:
        self.answers[method, path] = list(answers)

    def asked(self, method: str, path: str) -> list[Heard]:
        return [one for one in self.heard if (one.method, one.path) == (method, path)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        upgrade = request.headers.get("Upgrade", "") == "websocket"
        body = b"" if upgrade else await request.read()
        self.heard.append(
            Heard(request.method, request.path, dict(request.query), dict(request.headers), body)
        )
        prepared = self.answers.get((request.method, request.path))
        if prepared is None:
            return problem(404, "not_found", f"there is no {request.path}")
        chosen = prepared.pop(0) if len(prepared) > 1 else prepared[0]
        if callable(chosen):
            made: web.StreamResponse = await chosen(request)
            return made
        return as_json(chosen)


class Running:
    """The server's thread."""

    def __init__(self, manager: FakeManager) -> None:
        self._manager = manager
        self._up = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._down = asyncio.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> FakeManager:
        self._thread.start()
        assert self._up.wait(10)
        return self._manager

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{rest:.*}", self._manager.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._manager.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._up.set()
        await self._down.wait()
        await runner.cleanup()


def as_json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


def problem(status: int, code: str, title: str, **more: str) -> web.Response:
    body = msgspec.json.encode(Problem(code, title, status, **more))
    return web.Response(body=body, status=status, content_type="application/problem+json")


def fails(
    status: int, code: str, title: str, **more: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return problem(status, code, title, **more)

    return answer


def stream(*events: str | None) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Server-sent events; None breaks the connection there."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            if event is None:
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(event.encode())
        await response.write_eof()
        return response

    return answer


def event(name: str, value: Any, id_: str = "") -> str:
    head = f"id: {id_}\n" if id_ else ""
    return f"{head}event: {name}\ndata: {msgspec.json.encode(value).decode()}\n\n"


END = "event: end\ndata: {}\n\n"


def line(rank: int, text: str, id_: str = "", *, stderr: bool = False) -> str:
    value = {
        "rank": rank,
        "host_name": f"sub{rank}" if rank else "main1",
        "at_ns": 10**18 + rank,
        "stderr": stderr,
        "text": text,
    }
    return event("log", value, id_)


def session(
    state: SessionState = "running",
    *,
    size: int = 2,
    exit_code: int | None = None,
    reason: str | None = None,
    name: str = "demo",
) -> SessionView:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    ended = state in ("succeeded", "failed", "cancelled", "timeout")
    return SessionView(
        id=ID,
        name=name,
        kind="batch",
        mode="single-node",
        state=state,
        reason=reason,
        exit_code=exit_code,
        attempt=1,
        cluster="default",
        created_at=at,
        started_at=at,
        ended_at=at if ended else None,
        kernels=tuple(
            KernelView(
                rank=rank,
                host_name=f"sub{rank}" if rank else "main1",
                role="sub" if rank else "main",
                agent=AgentId("host1"),
                address=f"10.213.0.{60 - rank}",
                state=state,
                exit_code=None,
                reason=None,
            )
            for rank in range(size)
        ),
        spec=SessionSpec(name=name, image="alpine", command=("id",), roles=(RoleSpec("main"),)),
    )
