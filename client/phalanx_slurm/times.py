"""Lengths and points of time as SLURM writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from phalanx_slurm.wrong import WrongError

_LIMIT: Final = re.compile(
    r"(?:(?P<d>[0-9]{1,6})-(?P<dh>[0-9]{1,3})(?::(?P<dm>[0-9]{1,2})(?::(?P<ds>[0-9]{1,2}))?)?"
    r"|(?P<h>[0-9]{1,6}):(?P<hm>[0-9]{1,2}):(?P<hs>[0-9]{1,2})"
    r"|(?P<m>[0-9]{1,9})(?::(?P<s>[0-9]{1,2}))?)"
)
_ENDLESS: Final = ("unlimited", "infinite")
_AGO: Final = re.compile(
    r"now(?:(?P<sign>[+-])(?P<count>[0-9]{1,9})(?P<unit>second|minute|hour|day|week)?s?)?"
)
_STANDARD: Final = "%Y-%m-%dT%H:%M:%S"
_UNITS: Final = {
    "second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, None: 1,
}  # fmt: skip
_PARTS: Final = {"d": 86_400, "dh": 3600, "dm": 60, "h": 3600, "hm": 60, "m": 60}


def limit_s(text: str) -> float | None:
    """Read a time limit: `90` (minutes), `1:30` (m:s), `1:30:00`, `2-0`, `0-02:00:00`; seconds.
    None is `UNLIMITED`, and 0, which is the partition's own limit.

    Raises:
        WrongError: it is none of these.
    """
    if text.lower() in _ENDLESS:
        return None
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise WrongError(f"Invalid --time specification: {text[:80]}")
    total = sum(
        int(value) * _PARTS.get(name, 1)
        for name, value in match.groupdict().items()
        if value is not None
    )
    return float(total) or None


def elapsed(seconds: float) -> str:
    """Spell a length as accounting does: `[D-]HH:MM:SS`."""
    days, rest = divmod(max(0, int(seconds)), 86_400)
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


def shown(seconds: float) -> str:
    """Spell a length as the queue does: `5:07`, `1:05:07`, `2-01:05:07`."""
    days, rest = divmod(max(0, int(seconds)), 86_400)
    hours, minutes, left = rest // 3600, rest // 60 % 60, rest % 60
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{left:02d}"
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def limit_shown(seconds: float | None) -> str:
    """Spell a time limit as the queue does."""
    return "UNLIMITED" if seconds is None else shown(seconds)


def stamp(at: datetime | None, nothing: str, form: str = "") -> str:
    """Spell a moment, `2030-01-31T12:00:00`, in the zone of the moment; or in the form that
    `SLURM_TIME_FORMAT` names, `%s` for Unix seconds.
    """
    if at is None:
        return nothing
    if "%" not in form:
        form = _STANDARD
    return at.strftime(form.replace("%s", str(int(at.timestamp()))))


def moment(text: str, now: datetime) -> datetime:
    """Read a point in time: `now-2hours`, `today`, `2030-01-31`, `2030-01-31T12:00:00`, `12:00`;
    what names no zone is in that of `now`.

    Raises:
        WrongError: it is none of these.
    """
    if match := _AGO.fullmatch(text.lower()):
        span = int(match["count"] or 0) * _UNITS[match["unit"]]
        return now + timedelta(seconds=-span if match["sign"] == "-" else span)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text.lower() in ("today", "midnight"):
        return midnight
    if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", text):
        text = f"{midnight:%Y-%m-%d}T{text.zfill(5)}"
    # `1970-01-01-00:00:01` is written by tools, and taken.
    text = re.sub(r"^([0-9]{4}-[0-9]{2}-[0-9]{2})-", r"\1T", text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise WrongError(f"Invalid time specification: {text[:80]}") from None
    return at if at.tzinfo else at.replace(tzinfo=now.tzinfo or UTC)
