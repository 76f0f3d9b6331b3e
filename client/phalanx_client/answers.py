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
ANSWER = "the manager's answer"
WHO_ANSWERS = "Is it a manager that answers? See --url, PHALANX_URL."
UNEXPLAINED = "unexplained"
"""The code of a refusal that is no problem of the manager's."""


MOST_BYTES = 256 << 20
"""More than any answer that is read as a whole."""


async def body_of(reply: Reply) -> bytes:
    """Read all of it.

    Raises:
        Broken: it does not end.
    """
    pieces: list[bytes] = []
    left = MOST_BYTES
    async for piece in reply.pieces():
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            raise Broken(ANSWER, f"is longer than {MOST_BYTES >> 20} MiB", WHO_ANSWERS)
    return b"".join(pieces)


async def events_of(reply: Reply) -> AsyncGenerator[ServerEvent, None]:
    """Read server-sent events as they come.

    Raises:
        Broken: it is something else.
    """
    parser = Parser()
    async for piece in reply.pieces():
        try:
            events = parser.feed(piece)
        except ValueError as error:
            raise Broken(ANSWER, str(error), WHO_ANSWERS) from error
        for event in events:
            yield event


def check_events(reply: Reply) -> None:
    """Refuse a stream that is none.

    Raises:
        Broken: it is something else, as a proxy's page.
    """
    if not reply.headers.get("content-type", "").startswith("text/event-stream"):
        raise Broken(ANSWER, "is no stream of events", WHO_ANSWERS)


def decode(data: bytes | str, shape: type[T]) -> T:
    """Read a JSON document of a known shape.

    Raises:
        Broken: it has another one.
    """
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.MsgspecError as error:
        raise Broken(
            ANSWER,
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
