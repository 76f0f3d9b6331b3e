"""Bodies of requests, read strictly and within bounds."""

from __future__ import annotations

import asyncio
import difflib
import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from phalanx_manager.http.problems import refused, shown

T = TypeVar("T")

MAX_JSON_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 20
JSON_WAIT_S: Final = 15.0
PIECE_WAIT_S: Final = 60.0
_PIECE: Final = 256 << 10
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_AT: Final = re.compile(r" - at `(?:key in )?\$\.?(?P<path>.*)`$")
_UNKNOWN: Final = re.compile(r"unknown field `(?P<name>.*?)`", re.DOTALL)


async def read_json(request: web.Request) -> bytes:
    """Read a JSON body, whole; its end must come in time."""
    if request.content_type != "application/json":
        raise refused(
            "unsupported_media_type", 415, "the body must be JSON",
            hint="send `Content-Type: application/json`",
        )  # fmt: skip
    _refuse_encoding(request)
    if (request.content_length or 0) > MAX_JSON_BYTES:
        raise _too_large(MAX_JSON_BYTES)
    pieces = bytearray()
    try:
        async with asyncio.timeout(JSON_WAIT_S):
            async for piece in request.content.iter_any():
                pieces += piece
                if len(pieces) > MAX_JSON_BYTES:
                    raise _too_large(MAX_JSON_BYTES)
    except TimeoutError as error:
        raise _too_slow(JSON_WAIT_S) from error
    return bytes(pieces)


def parse(data: bytes, shape: type[T]) -> T:
    """Read JSON as a shape; the refusal says where the mistake is."""
    if not data.strip():
        raise refused("body_required", 400, "the request has no body", hint="send a JSON object")
    _check_json(data)
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as error:
        raise _wrong_shape(str(error), shape) from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refused("invalid_json", 400, f"the body is not JSON: {error}") from error


async def pieces(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    """Read a tar body as it comes, each piece in time, all of it within the limit."""
    if request.content_type not in {"application/x-tar", "application/octet-stream"}:
        raise refused(
            "unsupported_media_type", 415, "the body must be a tar archive, not compressed",
            hint="send `Content-Type: application/x-tar`",
        )  # fmt: skip
    _refuse_encoding(request)
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    total = 0
    while True:
        try:
            async with asyncio.timeout(PIECE_WAIT_S):
                piece = await request.content.read(_PIECE)
        except TimeoutError as error:
            raise _too_slow(PIECE_WAIT_S) from error
        if not piece:
            return
        total += len(piece)
        if total > limit:
            raise _too_large(limit)
        yield piece


def _refuse_encoding(request: web.Request) -> None:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise refused("unsupported_encoding", 415, "compressed bodies are not read")


def _too_large(limit: int) -> Exception:
    return refused("body_too_large", 413, f"the body is larger than {limit} bytes")


def _too_slow(waited_s: float) -> Exception:
    return refused("body_too_slow", 408, f"the body did not come within {waited_s:g} s")


def _check_json(data: bytes) -> None:
    """Refuse what JSON readers disagree about: depth, doubled keys, NaN, broken characters."""
    depth = 0
    for token in _TOKENS.finditer(data):
        if token[0] in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise refused("too_deep", 400, f"the body is nested deeper than {MAX_DEPTH}")
        elif token[0] in b"]}":
            depth -= 1
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        raise refused(
            "invalid_json",
            400,
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
        ) from error
    except UnicodeDecodeError as error:
        raise refused("invalid_json", 400, f"the body is not UTF-8 (byte {error.start})") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits
        raise refused("invalid_json", 400, f"the body is not JSON: {str(error)[:80]}") from error
    if not isinstance(value, dict):
        raise refused("object_expected", 400, "the body must be a JSON object, like {...}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _value in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise refused("duplicate_key", 400, f"the key {shown(twice)} is there twice", field=twice)
    for text in (*made, *(value for value in made.values() if isinstance(value, str))):
        _check_text(text)
    return made


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise refused("invalid_json", 400, "a text holds half of a surrogate pair") from error


def _constant(name: str) -> float:
    raise refused("invalid_json", 400, f"the body is not JSON: {name} is no JSON number")


def _wrong_shape(message: str, shape: type) -> Exception:
    at = _AT.search(message)
    field = at["path"] if at else ""
    what = message[: at.start()] if at else message
    unknown = _UNKNOWN.search(what)
    if unknown is None:
        title = f"{shown(field)}: {what}" if field else what
        return refused("invalid_field", 400, title, field)
    name = unknown["name"]
    close = difflib.get_close_matches(name, sorted(_names(shape)), n=1)
    return refused(
        "unknown_field",
        400,
        f"there is no field {shown(name)}" + (f" in {shown(field)}" if field else ""),
        f"{field}.{name}" if field else name,
        f"did you mean {close[0]}?" if close else "",
    )


def _names(shape: Any, seen: frozenset[Any] = frozenset()) -> set[str]:
    """All field names of a struct and the structs in it."""
    if isinstance(shape, type) and issubclass(shape, msgspec.Struct):
        if shape in seen:
            return set()
        names: set[str] = set()
        for field in msgspec.structs.fields(shape):
            names |= {field.encode_name} | _names(field.type, seen | {shape})
        return names
    return {name for part in getattr(shape, "__args__", ()) for name in _names(part, seen)}
