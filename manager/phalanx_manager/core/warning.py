"""The signal that a session asked for before its time is over, and signals by name."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(r"(?:SIG)?(?P<name>[A-Z]+[0-9]*(?:[+-][0-9]+)?)")
_WISH: Final = re.compile(r"(?P<batch>B:)?(?P<signal>[^@:]{1,20})@(?P<before>[0-9]{1,7})")


@dataclass(frozen=True, slots=True)
class Wish:
    """`USR1@90`: a signal, and how many seconds before the limit it is sent; with `B:` before it
    to the command also where there are tasks.
    """

    number: int
    before_s: float
    batch: bool = False


def signal_number(text: str) -> int | None:
    """Read `TERM`, `SIGUSR1` or `10`; None when there is no such signal."""
    if text.isascii() and text.isdigit() and len(text) <= 2:
        number = int(text)
        return number if 0 < number < signal.NSIG else None
    match = _NAME.fullmatch(text[:20].upper())
    if match is None:
        return None
    member = signal.Signals.__members__.get(f"SIG{match['name']}")
    return None if member is None else int(member)


def signal_name(number: int) -> str:
    """Spell a signal as people know it: `USR1`, or its number where it has no name."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


def parse(text: str) -> Wish | None:
    """Read `USR1@90`; None when it is nothing of the kind."""
    match = _WISH.fullmatch(text)
    number = signal_number(match["signal"]) if match is not None else None
    if match is None or number is None:
        return None
    return Wish(number, float(match["before"]), match["batch"] is not None)
