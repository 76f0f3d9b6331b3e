"""Reads the SQL files that lie beside this module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

_NAMED: Final = re.compile(r"(?ms)^-- name: (?P<name>[a-z_]+)\n(?P<text>.*?);\s*$")
_MIGRATION: Final = re.compile(r"(?P<number>[0-9]{4})_[a-z0-9_]+\.sql")


def queries() -> Mapping[str, str]:
    """Read the named statements, without their semicolons."""
    text = files("phalanx_manager.store").joinpath("queries.sql").read_text("utf-8")
    return {match["name"]: match["text"].strip() for match in _NAMED.finditer(text)}


def migrations() -> Mapping[int, str]:
    """Read the steps of the schema by number, counted from 1."""
    folder = files("phalanx_manager.store").joinpath("migrations")
    return {
        int(match["number"]): entry.read_text("utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if (match := _MIGRATION.fullmatch(entry.name))
    }
