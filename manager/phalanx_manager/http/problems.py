"""Refusals as RFC 9457 problem documents."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from phalanx_manager.core.model import Refusal
from phalanx_wire.api import Problem
from phalanx_wire.stream import Closed

MEDIA: Final = "application/problem+json"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_STATUS_OF_STREAM: Final[Mapping[str, int]] = {
    "bad_key": 400,
    "bad_port": 400,
    "bad_signal": 400,
    "not_found": 404,
    "no_container": 409,
    "not_running": 409,
    "output_gone": 410,
    "too_many_streams": 429,
    "connection_refused": 502,
    "connection_reset": 502,
    "engine_unavailable": 503,
    "link_lost": 503,
    "not_noted": 503,
    "unavailable": 503,
    "connection_timeout": 504,
}


class Refused(Exception):  # noqa: N818 - it is how a handler answers, not a fault
    """Ends a request with a problem; raised only in handlers, answered in one place."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.title)
        self.problem = problem
        self.headers = dict(headers or {})


def refused(code: str, status: int, title: str, field: str = "", hint: str = "") -> Refused:
    """Make a refusal: what happened to what, where in the request, and what to do."""
    return Refused(Problem(code, title, status, field=field, hint=hint))


def refusal(refusal: Refusal) -> Refused:
    """Answer with a refusal of the core or the store."""
    return refused(refusal.code, refusal.status, refusal.title, refusal.field, refusal.hint)


def not_found(what: str, name: str) -> Refused:
    """Say that there is no such thing, or not for this caller."""
    hint = "`phalanx ps --all` lists yours" if what == "session" else ""
    return refused("not_found", 404, f"there is no {what} {shown(name)}", hint=hint)


def of_stream(closed: Closed) -> Problem:
    """Say why a stream to an agent ended."""
    return Problem(
        closed.code or "stream_ended",
        closed.why or "the agent ended the stream",
        _STATUS_OF_STREAM.get(closed.code, 502),
        hint="try again" if closed.code == "link_lost" else "",
    )


def shown(text: str) -> str:
    """Quote a piece of the request for a sentence: short, and without control characters."""
    cut = text if len(text) <= 80 else text[:79] + "…"
    return "`" + _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", cut) + "`"


def response(problem: Problem, headers: Mapping[str, str] | None = None) -> web.Response:
    """Spell a problem as an answer."""
    return web.Response(
        body=msgspec.json.encode(problem),
        status=problem.status,
        headers=dict(headers or {}),
        content_type=MEDIA,
    )
