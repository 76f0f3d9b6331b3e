"""Moments, as engines spell them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

_NEVER: Final = "0001-01-01T00:00:00Z"


def unix_seconds(moment: str) -> float:
    """Read an engine's time (RFC 3339, to the nanosecond, of any zone) to the microsecond; 0 for
    its "never".
    """
    if not moment or moment == _NEVER:
        return 0.0
    return datetime.fromisoformat(moment).timestamp()
