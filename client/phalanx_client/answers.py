"""What a manager's answers say: documents, refusals, events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TypeVar

import msgspec

from phalanx_client.failure import Broken
from phalanx_client.sse import Parser, ServerEvent
from phalanx_client.transport import Reply
from phalanx_wire.api import Problem

T = TypeVar("T")
UNEXPLAINED = "unexplained"
"""The code of a refusal that is no problem of the manager's."""


async def body_of(reply: Reply) -> bytes:
    """Read all of it."""
    return b"".join([piece async for piece in reply.pieces()])


async def events_of(reply: Reply) -> AsyncGenerator[ServerEvent, None]:
    """Read server-sent events as they come."""
    parser = Parser()
    async for piece in reply.pieces():
        for event in parser.feed(piece):
            yield event


def decode(data: bytes | str, shape: type[T]) -> T:
    """Read a JSON document of a known shape.

    Raises:
        Broken: it has another one.
    """
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.MsgspecError as error:
        raise Broken(
            "the manager's answer",
            f"is not what this client understands ({error})",
            "Do client and manager have the same version?",
        ) from error


def problem_of(reply: Reply, body: bytes) -> Problem:
    """Read a refusal, also one of a proxy in between."""
    try:
        return msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        title = f"the manager, or something before it, answered {reply.status}"
        return Problem(code=UNEXPLAINED, title=title, status=reply.status)
