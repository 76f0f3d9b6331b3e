"""Query parameters: read, bounded, and described for OpenAPI, all from one place."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from multidict import MultiMapping

from phalanx_manager.http.problems import refused, shown
from phalanx_wire.ssh_key import public_key

_INT: Final = re.compile(r"[0-9]{1,9}")
_DURATION: Final = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_AGO: Final = timedelta(days=36_525)
"""A century ago is before everything."""

_RANKS: Final = re.compile(r"[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?)*")


@dataclass(frozen=True, slots=True)
class Param:
    """One query parameter.

    Attributes:
        read: takes the text, raises ValueError with a sentence.
        schema: JSON Schema of its value.
        many: may be there several times; its value is then a tuple.
        required: a request without it is refused.
    """

    name: str
    about: str
    read: Callable[[str], Any]
    schema: Mapping[str, Any]
    many: bool = False
    required: bool = False


def read_all(params: Sequence[Param], query: MultiMapping[str]) -> dict[str, Any]:
    """Read a query; what was not given is left out."""
    known = {param.name: param for param in params}
    values: dict[str, Any] = {}
    for name in dict.fromkeys(query):
        param = known.get(name)
        if param is None:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"did you mean {close[0]}?" if close else ""
            title = f"there is no parameter {shown(name)} here"
            raise refused("unknown_parameter", 400, title, name[:80], hint)
        texts = query.getall(name)
        if len(texts) > 1 and not param.many:
            raise refused("invalid_parameter", 400, f"`{name}` is there twice", name)
        try:
            read = tuple(param.read(text) for text in texts)
        except ValueError as error:
            raise refused("invalid_parameter", 400, f"`{name}`: {error}", name) from error
        values[name] = read if param.many else read[0]
    for param in params:
        if param.required and param.name not in values:
            raise refused(
                "missing_parameter", 400, f"the parameter `{param.name}` is missing", param.name
            )
    return values


# ---------------------------------------------------------------- kinds of parameters


def flag(name: str, about: str) -> Param:
    """Make a yes or no: `1` or `0`."""

    def read(text: str) -> bool:
        if text not in {"0", "1", "true", "false"}:
            raise ValueError(f"{shown(text)} is neither 1 nor 0")
        return text in {"1", "true"}

    return Param(name, about, read, {"type": "string", "enum": ["0", "1", "true", "false"]})


def whole(name: str, about: str, low: int, high: int) -> Param:
    """Make a whole number within bounds."""

    def read(text: str) -> int:
        if _INT.fullmatch(text) is None or not low <= int(text) <= high:
            raise ValueError(f"{shown(text)} is not a whole number from {low} to {high}")
        return int(text)

    return Param(name, about, read, {"type": "integer", "minimum": low, "maximum": high})


def seconds(name: str, about: str, high: float) -> Param:
    """Make a number of seconds."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise ValueError(f"{shown(text)} is not a number of seconds") from error
        if not (math.isfinite(value) and 0 <= value <= high):
            raise ValueError(f"{shown(text)} is not a number of seconds from 0 to {high:g}")
        return value

    return Param(name, about, read, {"type": "number", "minimum": 0, "maximum": high})


def choice(name: str, about: str, values: Sequence[str], *, many: bool = False) -> Param:
    """Make one of some words."""

    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"{shown(text)} is none of {', '.join(values)}")
        return text

    return Param(name, about, read, {"type": "string", "enum": list(values)}, many=many)


def ranks(name: str, about: str) -> Param:
    """Make a set of ranks: `0,2-3`."""

    def read(text: str) -> tuple[tuple[int, int], ...]:
        if len(text) > 4096 or _RANKS.fullmatch(text) is None:
            raise ValueError(f"{shown(text)} is not a list of ranks like 0,2-3")
        ranges = [part.partition("-")[::2] for part in text.split(",")]
        return tuple((int(first), int(last or first)) for first, last in ranges)

    return Param(name, about, read, {"type": "string", "pattern": _RANKS.pattern})


def moment(name: str, about: str) -> Param:
    """Make a time: RFC 3339, or how long ago: `90s`, `10m`, `2h`, `1d`.

    The value is a datetime, or a timedelta before now.
    """

    def read(text: str) -> datetime | timedelta:
        ago = _DURATION.fullmatch(text)
        if ago is not None:
            return min(timedelta(seconds=int(ago["number"]) * _UNIT_S[ago["unit"]]), _LONGEST_AGO)
        try:
            # A plus that was not quoted arrives as a blank.
            value = datetime.fromisoformat(text[:40].replace(" ", "+"))
        except ValueError as error:
            raise ValueError(
                f"{shown(text)} is neither a time like 2025-01-31T12:00:00Z nor 90s, 10m, 2h, 1d"
            ) from error
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)

    return Param(name, about, read, {"type": "string"})


def words(name: str, about: str) -> Param:
    """Make an argument list, written as a JSON list of texts."""

    def read(text: str) -> tuple[str, ...]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError("it must be a JSON list of texts") from error
        good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not good or not 0 < len(value) <= 4096:
            raise ValueError("it must be a JSON list of 1 to 4096 texts")
        if any("\0" in item for item in value) or not value[0]:
            raise ValueError("no text in it may hold NUL, and the first may not be empty")
        _check_encodable(value)
        return tuple(value)

    return Param(name, about, read, {"type": "string", "contentMediaType": "application/json"})


def _check_encodable(texts: Sequence[str]) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half of a surrogate pair") from error


def ssh_key(name: str, about: str) -> Param:
    """Make a public key in OpenSSH's one-line form; its comment is left out."""
    return Param(name, about, public_key, {"type": "string"})


def path(name: str, about: str) -> Param:
    """Make an absolute path in a container."""

    def read(text: str) -> str:
        if not text.startswith("/") or "\0" in text or len(text.encode("utf-8", "replace")) > 4096:
            raise ValueError(f"{shown(text)} is not an absolute path of at most 4096 bytes")
        return text

    return Param(name, about, read, {"type": "string", "pattern": "^/"}, required=True)
