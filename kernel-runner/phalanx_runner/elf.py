"""What the head of a program says: for which machine it is, and whether it needs a loader."""

from __future__ import annotations

import struct
from pathlib import Path

PT_INTERP = 3
MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine: as `uname -m` says


def is_program(path: Path) -> bool:
    """Whether a file is ELF."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def machine(path: Path) -> str:
    """The machine that a 64-bit little-endian ELF file is for; "" for one that we don't know."""
    with path.open("rb") as file:
        (number,) = struct.unpack_from("<H", file.read(20), 18)
    return MACHINES.get(number, "")


def is_static(path: Path) -> bool:
    """Whether a 64-bit little-endian ELF file asks for no program interpreter."""
    data = path.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<I", data, table + i * size)[0] for i in range(count)]
    return PT_INTERP not in kinds
