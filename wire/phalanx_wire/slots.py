"""Amounts of what a host has and a kernel takes."""

from __future__ import annotations

import re
from typing import Final

import msgspec

_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_AMOUNT: Final = re.compile(
    r"(?P<number>[0-9]{1,12}(\.[0-9]{1,6})?)\s?(?P<unit>[kmgtKMGT]?)(i?[bB])?"
)


class Slots(msgspec.Struct, frozen=True):
    """A bag of amounts.

    Attributes:
        cpu_milli: thousandths of a core.
        mem_bytes: memory, /dev/shm included.
        gpu: whole devices.
        pids: processes and threads.
    """

    cpu_milli: int = 0
    mem_bytes: int = 0
    gpu: int = 0
    pids: int = 0

    def __add__(self, other: Slots) -> Slots:
        return Slots(
            self.cpu_milli + other.cpu_milli,
            self.mem_bytes + other.mem_bytes,
            self.gpu + other.gpu,
            self.pids + other.pids,
        )

    def __sub__(self, other: Slots) -> Slots:
        return Slots(
            self.cpu_milli - other.cpu_milli,
            self.mem_bytes - other.mem_bytes,
            self.gpu - other.gpu,
            self.pids - other.pids,
        )

    def fits(self, room: Slots) -> bool:
        """Tell whether all amounts are within `room`."""
        return (
            self.cpu_milli <= room.cpu_milli
            and self.mem_bytes <= room.mem_bytes
            and self.gpu <= room.gpu
            and self.pids <= room.pids
        )


def parse_bytes(text: str) -> int:
    """Read an amount of memory: `512M`, `4g`, `1.5GiB`, `1073741824`; units are powers of 1024.

    Raises:
        ValueError: the text is no such amount; the sentence names what is allowed.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text[:80]!r} is not an amount of memory; write it as 512M, 4G or 1.5GiB"
        )
    return int(float(match["number"]) * _UNITS[match["unit"].lower()])


def spell_bytes(amount: int) -> str:
    """Write an amount of memory with the unit that keeps it short: `1.5 GiB`."""
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(amount) >= size:
            return f"{amount / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{amount} B"


def spell_cpu(cpu_milli: int) -> str:
    """Write thousandths of cores as cores: `1500` is `1.5`."""
    return f"{cpu_milli / 1000:.3f}".rstrip("0").rstrip(".")
