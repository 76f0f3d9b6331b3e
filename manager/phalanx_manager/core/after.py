"""Sessions that wait for the end of others: `afterok:ID,afterany:ID,afternotok:ID`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from phalanx_manager.core.model import Session
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.ids import SessionId

Kind = Literal["afterok", "afterany", "afternotok"]

MAX_AFTER: Final = 100
_KINDS: Final[Mapping[str, Kind]] = {
    "afterok": "afterok",
    "afterany": "afterany",
    "afternotok": "afternotok",
}
_WISH: Final = re.compile(rf"(?P<kind>{'|'.join(_KINDS)}):(?P<ref>[a-z0-9][a-z0-9-]{{0,62}})")


@dataclass(frozen=True, slots=True)
class After:
    """One session to wait for; once admitted `ref` is its id."""

    kind: Kind
    ref: str


@dataclass(frozen=True, slots=True)
class Waits:
    """Some session has not ended yet."""

    reason: str


@dataclass(frozen=True, slots=True)
class Never:
    """Some session has ended in another way than was waited for."""

    reason: str


def parse(text: str) -> tuple[After, ...] | None:
    """Read a list; None when it is none."""
    found: list[After] = []
    for part in text.split(","):
        match = _WISH.fullmatch(part)
        if match is None:
            return None
        found.append(After(_KINDS[match["kind"]], match["ref"]))
    return tuple(found) if len(found) <= MAX_AFTER else None


def spell(wishes: Sequence[After]) -> str:
    """Spell a list."""
    return ",".join(f"{wish.kind}:{wish.ref}" for wish in wishes)


def verdict(
    wishes: Sequence[After], others: Mapping[SessionId, Session | None]
) -> Waits | Never | None:
    """Tell whether a session may run as far as others go; None when it may.

    `others` has all that are named; None is one that is not known any more.
    """
    waits: Waits | None = None
    for wish in wishes:
        other = others[SessionId(wish.ref)]
        if other is None:
            if wish.kind != "afterany":
                return Never(f"nobody knows any more how session {wish.ref} has ended")
        elif other.state not in ENDED_STATES:
            waits = waits or Waits(f"waits for the end of session {other.name}")
        elif wish.kind != "afterany" and (other.state == "succeeded") is (wish.kind != "afterok"):
            how = "success" if wish.kind == "afterok" else "failure"
            return Never(f"it was to run after the {how} of session {other.name}, {_how(other)}")
    return waits


def _how(other: Session) -> str:
    return f"which is {other.state}"
