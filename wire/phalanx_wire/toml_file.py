"""Reads a configuration file, whatever stands in its place."""

from __future__ import annotations

import errno
import os
import stat
import tomllib
from typing import Any, Final

MAX_BYTES: Final = 64 << 10
"""Far more than anybody writes, and little enough to be read at once."""


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], int]:
    """Read a TOML file; its content and mode.

    Raises:
        OSError: it cannot be read, or is a pipe or the like, which nobody may ever write to.
        ValueError: it is longer than `MAX_BYTES`, or no TOML.
    """
    with open(path, "rb", opener=_at_once) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
        content = file.read(MAX_BYTES + 1) or b""
    if len(content) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES >> 10} KiB")
    try:
        return tomllib.loads(content.decode()), mode
    except RecursionError:
        raise ValueError("nested too deep") from None


def _at_once(path: str, flags: int) -> int:
    """Open it without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
