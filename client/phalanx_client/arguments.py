"""A command line's parser, and how to read the texts in it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn

from phalanx_client.failure import USAGE

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)")
_CLOCK: Final = re.compile(
    r"(?:(?P<d>[0-9]+)-)?(?P<h>[0-9]+):(?P<m>[0-5]?[0-9])(?::(?P<s>[0-5]?[0-9]))?"
)


class Parser(argparse.ArgumentParser):
    """Exits with 64 for bad usage and takes no abbreviated options."""

    def __init__(self, verb: str, about: str, usage: str | None = None) -> None:
        super().__init__(
            prog=f"phalanx {verb}",
            description=about,
            usage=f"phalanx {usage}" if usage else None,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how to find out more."""
        print(f"{self.prog}: {message}\n  see: {self.prog} --help", file=sys.stderr)
        raise SystemExit(USAGE)


def checked(read: Callable[[str], object]) -> Callable[[str], object]:
    """Make a reader whose `ValueError` is the sentence that the user sees."""

    def convert(text: str) -> object:
        try:
            return read(text)
        except ValueError as wrong:
            raise argparse.ArgumentTypeError(str(wrong)) from None

    return convert


def seconds(text: str) -> float:
    """Read `90`, `90s`, `30m`, `2h`, `1d`, `1h30m`, `1:30` (h:m), `1:30:00`, `2-00:00:00`.

    Raises:
        ValueError: it is none of these.
    """
    if clock := _CLOCK.fullmatch(text):
        days, hours, minutes, rest = (int(clock[key] or 0) for key in "dhms")
        return float(days * 86400 + hours * 3600 + minutes * 60 + rest)
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(
            f"{text!r} is no length of time; write 90s, 30m, 2h, 1d or 1:30:00 (h:m:s)"
        )
    if len(parts) > 1 and any(not unit for _, unit in parts):
        raise ValueError(f"{text!r} is no length of time: every number needs its unit, as in 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def since(text: str, now: datetime) -> str:
    """Read a point in time, `10m` ago or RFC 3339, and spell it in RFC 3339.

    Raises:
        ValueError: it is neither.
    """
    try:
        return _spell(now - timedelta(seconds=seconds(text)))
    except (ValueError, OverflowError):
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time; write how long ago (10m, 2h) or like 2030-01-31T12:00:00Z"
        ) from None
    return _spell(at if at.tzinfo else at.astimezone())


def _spell(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def ranks(text: str) -> str:
    """Check a list of ranks, `0,2-3`.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*", text):
        raise ValueError(f"{text!r} is no list of ranks; write 0,2-3")
    return text


def count(text: str) -> int:
    """Read a whole number, zero or more.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{text!r} is no count; write a whole number such as 4")
    return int(text)


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and the command after the first `--`."""
    words = list(argv)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]
