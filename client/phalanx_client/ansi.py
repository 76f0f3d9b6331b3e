"""What a container prints, made safe for a terminal; pure."""

from __future__ import annotations

import re

_PALETTE = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_COLOUR = r"\x1b\[[0-9;:]*m"
_DANGEROUS = re.compile(
    rf"(?P<colour>{_COLOUR})"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, clipboard, links
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC: whole programs for some terminals
    r"|\x1b\[[0-?]*[ -/]*[@-~]?"  # other CSI: cursor, screen, modes, reports
    r"|\x1b[ -/]*[0-~]?"  # other escapes
    r"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f\x80-\x9f]"  # controls but tab and newline
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
RESET = "\x1b[0m"


def colours_only(line: str) -> str:
    """Keep text and colours of a line, drop what could steer the terminal.

    A carriage return starts the line again, as on a terminal: progress bars show their last state.
    """
    line = line.rstrip("\r").rpartition("\r")[2]
    return _DANGEROUS.sub(lambda match: match["colour"] or "", line)


def escape(cell: str) -> str:
    """Spell control characters (and those that reverse a line's direction) visibly."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), cell)


def painted(text: str, rank: int) -> str:
    """Text in a rank's colour."""
    return f"\x1b[{_PALETTE[rank % len(_PALETTE)]}m{text}{RESET}"
