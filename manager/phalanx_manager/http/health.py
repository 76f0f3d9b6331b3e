"""For monitors: is it up, can it work, and numbers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from aiohttp import web

from phalanx_manager.http import views
from phalanx_manager.http.ask import Ask
from phalanx_manager.http.problems import refused
from phalanx_manager.store.port import Unavailable

_STORE_S: Final = 2.0
REQUESTS: Final = web.AppKey("requests", Counter[tuple[str, str, int]])
"""Finished requests by method, path of the table, status."""

DOCUMENT: Final = web.AppKey("document", bytes)


async def alive(_ask: Ask) -> web.Response:
    """Answer: the process turns."""
    return web.Response(text="ok\n")


async def ready(ask: Ask) -> web.Response:
    """Answer whether the manager can work now."""
    why = ask.doors.ready()
    if not why:
        try:
            async with asyncio.timeout(_STORE_S):
                await ask.doors.store.last_event()
        except TimeoutError:
            why = f"the database did not answer within {_STORE_S:g} s"
        except Unavailable as error:
            why = str(error)
    if why:
        raise refused("not_ready", 503, why)
    return web.Response(text="ok\n")


async def document(ask: Ask) -> web.Response:
    """Describe this API."""
    return web.Response(body=ask.request.app[DOCUMENT], content_type="application/json")


async def metrics(ask: Ask) -> web.Response:
    """Tell numbers in Prometheus' text format."""
    snapshot = await ask.doors.store.load()
    counts = views.counted(snapshot, ask.doors.clock.now())
    lines: list[str] = []
    for what, by_state in counts.items():
        rows = [({"state": state}, number) for state, number in sorted(by_state.items())]
        lines += _metric(f"phalanx_{what}", "gauge", f"Live {what} by state.", rows)
    turns = [({"loop": name}, number) for name, number in sorted(ask.doors.turns().items())]
    lines += _metric("phalanx_loop_turns_total", "counter", "Turns of each loop.", turns)
    links = len(ask.doors.link.connected())
    about = "Agents whose link is up."
    lines += _metric("phalanx_agents_connected", "gauge", about, [({}, links)])
    requests = [
        ({"method": method, "path": path, "status": str(status)}, number)
        for (method, path, status), number in sorted(ask.request.app[REQUESTS].items())
    ]
    lines += _metric("phalanx_http_requests_total", "counter", "Finished requests.", requests)
    text = "\n".join(lines) + "\n"
    return web.Response(
        body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


def _metric(
    name: str, kind: str, about: str, rows: Iterable[tuple[Mapping[str, str], int]]
) -> list[str]:
    out = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
    for labels, number in rows:
        # A JSON text is a Prometheus label value: the same escapes for what we put there.
        inside = ",".join(
            f"{key}={msgspec.json.encode(value).decode()}" for key, value in labels.items()
        )
        out.append(f"{name}{{{inside}}} {number}" if inside else f"{name} {number}")
    return out
