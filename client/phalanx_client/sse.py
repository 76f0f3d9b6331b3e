"""Server-sent events out of bytes; pure."""

from __future__ import annotations

from dataclasses import dataclass

MOST_BYTES = 16 << 20
"""Of one line; the longest of output are 1 MiB, and spelled as JSON six times that."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event of a stream.

    Attributes:
        id: the resume point after this event; empty before the first one that has one.
    """

    id: str
    name: str
    data: str


class Parser:
    """Takes a stream apart; pieces may end anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._id = ""
        self._name = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """The events that are complete now.

        Raises:
            ValueError: it is a line that does not end.
        """
        if len(self._rest) > MOST_BYTES:
            raise ValueError(f"has a line of more than {MOST_BYTES >> 20} MiB")
        *lines, self._rest = (self._rest + piece).split(b"\n")
        events = [self._line(line.removesuffix(b"\r").decode("utf-8", "replace")) for line in lines]
        return [event for event in events if event is not None]

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "id":
                self._id = value
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case _:
                pass  # a comment keeps the connection alive; other fields are not ours
        return None

    def _dispatch(self) -> ServerEvent | None:
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return ServerEvent(self._id, name, "\n".join(data)) if data else None
