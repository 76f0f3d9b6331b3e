"""Amounts as SLURM writes them: memory, devices, numbers of nodes and tasks."""

from __future__ import annotations

import math
import re
from typing import Final

from phalanx_slurm.wrong import WrongError

_MEM: Final = re.compile(r"(?P<number>[0-9]{1,15})(?P<unit>[KMGT]?)B?", re.IGNORECASE)
_EXPONENT: Final = {"K": 1, "": 2, "M": 2, "G": 3, "T": 4}
_GPU: Final = re.compile(r"(?:(?P<model>[A-Za-z][A-Za-z0-9._-]{0,62}):)?(?P<count>[0-9]{1,6})")
_GRES: Final = re.compile(
    r"gpu(?:[:=](?P<model>[A-Za-z][A-Za-z0-9._-]{0,62}))?(?:[:=](?P<count>[0-9]{1,6}))?(?:\(.*\))?"
)
_NODES: Final = re.compile(r"(?P<least>[0-9]{1,6})(?:-(?P<most>[0-9]{1,6}))?")
_SUFFIXED: Final = re.compile(r"(?P<number>[0-9]{1,9})(?P<k>[kK]?)")


def mem_bytes(text: str, option: str) -> int:
    """Read an amount of memory; without a unit it is in MiB, and 0 is all that there is.

    Raises:
        WrongError: it is none.
    """
    match = _MEM.fullmatch(text)
    if match is None:
        raise WrongError(f"Invalid --{option} specification: {text[:80]}")
    return int(match["number"]) << 10 * _EXPONENT[match["unit"].upper()]


def mem_shown(size: int) -> str:
    """Spell memory in the largest unit that leaves it whole or nearly so: `512M`, `1.50G`."""
    for unit, exponent in (("T", 4), ("G", 3)):
        if size >= 1024**exponent:
            amount = size / 1024**exponent
            return f"{amount:.0f}{unit}" if amount == int(amount) else f"{amount:.2f}{unit}"
    return f"{size // 1024**2}M"


def gpus(text: str, option: str) -> tuple[str, int]:
    """Read `8` or `a100:8`: the model, empty for any, and the count.

    Raises:
        WrongError: it is neither.
    """
    match = _GPU.fullmatch(text)
    if match is None:
        raise WrongError(f"Invalid --{option} specification: {text[:80]}")
    return (match["model"] or "").lower(), int(match["count"])


def gres(text: str) -> tuple[str, int]:
    """Read `gpu`, `gpu:8`, `gpu:a100:8`; `none` is none.

    Raises:
        WrongError: it asks for something that is no gpu.
    """
    if text.lower() in ("none", ""):
        return "", 0
    match = _GRES.fullmatch(text)
    if match is None:
        raise WrongError(f"Invalid generic resource (gres) specification: {text[:80]}")
    return (match["model"] or "").lower(), int(match["count"] or 1)


def count(text: str, option: str, least: int = 1) -> int:
    """Read a whole number; `2k` is 2048.

    Raises:
        WrongError: it is none, or too small.
    """
    match = _SUFFIXED.fullmatch(text)
    number = int(match["number"]) * (1024 if match["k"] else 1) if match else -1
    if number < least:
        raise WrongError(f'Invalid numeric value "{text[:80]}" for --{option}.')
    return number


def nodes(text: str) -> int:
    """Read a number of nodes, `4` or `2-4`: the least is what is asked for.

    Raises:
        WrongError: it is none.
    """
    match = _NODES.fullmatch(text)
    least = int(match["least"]) if match else 0
    if match is None or not least or (match["most"] and int(match["most"]) < least):
        raise WrongError(f"Invalid node count specification: {text[:80]}")
    return least


def ceil_div(total: int, parts: int) -> int:
    """How many each part has at most."""
    return math.ceil(total / parts)
