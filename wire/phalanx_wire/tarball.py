"""Is a tar archive safe to unpack? Reads headers only; what it does not understand it refuses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO, Final

BLOCK: Final = 512
MAX_MEMBERS: Final = 100_000
MAX_NAME_BYTES: Final = 4_096
MAX_DEPTH: Final = 64
_MAX_EXTENSION_BYTES: Final = 64 << 10
_FILES: Final = frozenset(b"0\x007")
_HARD_LINK, _SYMBOLIC_LINK, _FOLDER = b"1"[0], b"2"[0], b"5"[0]
_LONG_NAME, _LONG_LINK = b"L"[0], b"K"[0]
_EXTENDED, _GLOBAL = b"x"[0], b"g"[0]
_DEVICES: Final = frozenset(b"346")


class UnsafeArchiveError(ValueError):
    """The archive must not be unpacked; the sentence says which member and why."""


@dataclass(slots=True)
class _Extension:
    """What headers before a member say about it."""

    name: str | None = None
    link: str | None = None


def check(file: BinaryIO) -> int:
    """Walk an archive from the beginning of a file; returns the number of its members.

    Raises:
        UnsafeArchiveError: a name leaves the folder, a device, a link that leads out, too many
            members, a header that is broken or means different things to different readers.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    extension = _Extension()
    symbolic: set[str] = set()
    members = 0
    while True:
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise UnsafeArchiveError("the archive is cut off, or it is no tar archive")
        if not any(header):
            return members
        kind, length = _kind_and_length(header)
        end = file.tell() + -(-length // BLOCK) * BLOCK
        if end > size:
            raise UnsafeArchiveError("the archive is cut off")
        if kind in (_LONG_NAME, _LONG_LINK, _EXTENDED, _GLOBAL):
            _extend(extension, kind, _body(file, length))
        else:
            members += 1
            if members > MAX_MEMBERS:
                raise UnsafeArchiveError(f"the archive has more than {MAX_MEMBERS} members")
            _check_member(header, kind, extension, symbolic)
            extension = _Extension()
        file.seek(end)


def _kind_and_length(header: bytes) -> tuple[int, int]:
    unsigned = sum(header[:148]) + 8 * 32 + sum(header[156:])
    if _number(header[148:156]) != unsigned:
        raise UnsafeArchiveError("a header's checksum is wrong: this is no plain tar archive")
    kind = header[156]
    # Links and folders have no content, whatever their header says.
    has_content = kind not in (_HARD_LINK, _SYMBOLIC_LINK, _FOLDER)
    length = _number(header[124:136])
    if not has_content and length:
        raise UnsafeArchiveError("a link or folder claims to have content")
    return kind, length


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] == 0xFF or value >= 1 << 62:
            raise UnsafeArchiveError("a header holds a number out of range")
        return value
    text = field.split(b"\0")[0].strip()
    try:
        value = int(text or b"0", 8)
    except ValueError as error:
        raise UnsafeArchiveError("a header holds no number where one must be") from error
    if value < 0:
        raise UnsafeArchiveError("a header holds a number out of range")
    return value


def _body(file: BinaryIO, length: int) -> bytes:
    if length > _MAX_EXTENSION_BYTES:
        raise UnsafeArchiveError("an extended header is too long")
    return file.read(length)


def _extend(extension: _Extension, kind: int, body: bytes) -> None:
    if kind == _LONG_NAME:
        extension.name = _text(body.split(b"\0")[0])
        return
    if kind == _LONG_LINK:
        extension.link = _text(body.split(b"\0")[0])
        return
    for key, value in _records(body):
        if key in {"size", "path", "linkpath"} and kind == _GLOBAL:
            raise UnsafeArchiveError("a global header names or sizes members")
        if key == "size" or key.startswith("GNU.sparse"):
            raise UnsafeArchiveError("an extended header changes a member's size")
        if key == "path":
            extension.name = value
        if key == "linkpath":
            extension.link = value


def _records(body: bytes) -> list[tuple[str, str]]:
    """Take records apart: a length, a blank, `KEY=VALUE`, a line feed."""
    records = []
    while body.strip(b"\0"):
        digits, blank, _rest = body.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 7 else 0
        record = body[len(digits) + 1 : length - 1]
        key, equals, value = record.partition(b"=")
        if not blank or length > len(body) or not equals or body[length - 1 : length] != b"\n":
            raise UnsafeArchiveError("an extended header is broken")
        records.append((_text(key), _text(value)))
        body = body[length:]
    return records


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _check_member(header: bytes, kind: int, extension: _Extension, symbolic: set[str]) -> None:
    name = extension.name
    if name is None:
        is_ustar = header[257:263] == b"ustar\0"
        prefix = _text(header[345:500].split(b"\0")[0]) if is_ustar else ""
        plain = _text(header[:100].split(b"\0")[0])
        name = f"{prefix}/{plain}" if prefix else plain
    parts = _parts(name)
    for depth in range(1, len(parts)):
        if "/".join(parts[:depth]) in symbolic:
            raise UnsafeArchiveError(f"{_shown(name)} lies behind a symbolic link of the archive")
    if kind in _DEVICES:
        raise UnsafeArchiveError(f"{_shown(name)} is a device or a pipe")
    if kind in (_HARD_LINK, _SYMBOLIC_LINK):
        target = extension.link
        if target is None:
            target = _text(header[157:257].split(b"\0")[0])
        _check_link(name, parts, target, is_symbolic=kind == _SYMBOLIC_LINK)
        if kind == _SYMBOLIC_LINK:
            symbolic.add("/".join(parts))
    elif kind != _FOLDER and kind not in _FILES:
        raise UnsafeArchiveError(
            f"{_shown(name)} is of a kind that is not unpacked ({chr(kind)!r})"
        )


def _parts(name: str) -> list[str]:
    if not name or len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise UnsafeArchiveError(f"the name {_shown(name)} is empty or too long")
    if name.startswith("/"):
        raise UnsafeArchiveError(f"{_shown(name)} is an absolute name")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise UnsafeArchiveError(f"{_shown(name)} leads out of the archive's folder")
    if len(parts) > MAX_DEPTH:
        raise UnsafeArchiveError(f"{_shown(name)} is more than {MAX_DEPTH} folders deep")
    return parts


def _check_link(name: str, parts: list[str], target: str, *, is_symbolic: bool) -> None:
    if not target or target.startswith("/") or len(os.fsencode(target)) > MAX_NAME_BYTES:
        raise UnsafeArchiveError(f"the link {_shown(name)} leads to {_shown(target)}")
    # A symbolic link is read from where it lies, a hard link from the archive's folder.
    depth = len(parts) - 1 if is_symbolic else 0
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in {"", "."}:
            depth += 1
        if depth < 0:
            raise UnsafeArchiveError(f"the link {_shown(name)} leads out of the archive's folder")


def _shown(name: str) -> str:
    return ascii(name[:80])
