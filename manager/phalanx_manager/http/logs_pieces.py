"""Lines of output as they are sent: spelled once, however many they are sent to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from phalanx_manager.core.model import Kernel
from phalanx_manager.http import cursor, sse
from phalanx_manager.http.cursor import Position
from phalanx_wire.api import LogEvent, LogLine

Batch = list[tuple[Kernel, LogLine]]

MOST_LINES: Final = 256
MOST_CHARACTERS: Final = 32 << 10
"""Of a piece, but for its last line: so much is copied for each client that is slow."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some lines as events.

    Attributes:
        events: all but the last.
        last: the last, which can be given an id.
        ends: the position after it, of each rank that is in it.
    """

    events: bytes
    last: bytes
    ends: Mapping[int, Position]

    def identified(self, positions: Mapping[int, Position] | None) -> bytes:
        """Spell it; with positions of all ranks it carries the point to resume from."""
        if positions is None:
            return self.events + self.last
        return b"".join((self.events, b"id: ", cursor.spell(positions).encode(), b"\n", self.last))


Put = Callable[[Piece], Awaitable[None]]


def following(before: Position | None, at_ns: int) -> Position:
    """Tell the position after one line more."""
    same = before is not None and before[0] == at_ns
    return (at_ns, before[1] + 1 if before is not None and same else 1)


def reaches(position: Position | None, had: Position | None) -> bool:
    """Tell whether a position is at a line, or behind it in a row of the same time."""
    if had is None or position is None:
        return had is None
    return position[0] == had[0] and position[1] >= had[1]


def spell(batch: Batch, before: Mapping[int, Position]) -> Piece:
    """Spell lines, at least one, that come after these positions."""
    events: list[bytes] = []
    ends: dict[int, Position] = {}
    for kernel, line in batch:
        rank = kernel.rank
        ends[rank] = following(ends.get(rank, before.get(rank)), line.at_ns)
        event = LogEvent(rank, kernel.host_name, line.at_ns, line.stderr, line.text)
        events.append(sse.spell(msgspec.json.encode(event), "log"))
    return Piece(b"".join(events[:-1]), events[-1], ends)


def spell_one(kernel: Kernel, lines: Iterable[LogLine], before: Position | None) -> Piece:
    """Spell lines of one kernel that come after a position."""
    ends = {} if before is None else {kernel.rank: before}
    return spell([(kernel, line) for line in lines], ends)


def portions(lines: Iterable[LogLine]) -> Iterator[list[LogLine]]:
    """Part lines into as many as a piece may have."""
    portion: list[LogLine] = []
    held = 0
    for line in lines:
        portion.append(line)
        held += len(line.text)
        if len(portion) >= MOST_LINES or held >= MOST_CHARACTERS:
            yield portion
            portion, held = [], 0
    if portion:
        yield portion
