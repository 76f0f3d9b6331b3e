"""Reads the SQL files that lie beside this module, and spells them for PostgreSQL.

The files are SQLite's SQL. What PostgreSQL says in another way is all in this module, but for
triggers: those are in files of their own, `NNNN_*.sqlite.sql` and `NNNN_*.postgres.sql`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final, Literal

Dialect = Literal["sqlite", "postgres"]

_NAMED: Final = re.compile(r"(?ms)^-- name: (?P<name>[a-z_]+)\n(?P<text>.*?);\s*$")
_MIGRATION: Final = re.compile(
    r"(?P<number>[0-9]{4})_[a-z0-9_]+(\.(?P<only>sqlite|postgres))?\.sql"
)
_PARAMETER: Final = re.compile(r"(?<![:\w]):(?P<name>[a-z_][a-z0-9_]*)")
_POSTGRES_TYPES: Final = (
    (re.compile(r"\bINTEGER PRIMARY KEY AUTOINCREMENT\b"),
     "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    (re.compile(r"\bINTEGER\b"), "BIGINT"),  # ours are 64 bits wide
    (re.compile(r"\bREAL\b"), "DOUBLE PRECISION"),
    (re.compile(r"\bBLOB\b"), "BYTEA"),
    (re.compile(r"\) STRICT;"), ");"),  # it is always strict
)  # fmt: skip


def queries() -> Mapping[str, str]:
    """Read the named statements, without their semicolons."""
    text = files("phalanx_manager.store").joinpath("queries.sql").read_text("utf-8")
    return {match["name"]: match["text"].strip() for match in _NAMED.finditer(text)}


def migrations(dialect: Dialect = "sqlite") -> Mapping[int, str]:
    """Read the steps of the schema by number, counted from 1."""
    folder = files("phalanx_manager.store").joinpath("migrations")
    steps: dict[int, str] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        match = _MIGRATION.fullmatch(entry.name)
        if match is None or match["only"] not in (None, dialect):
            continue
        text = entry.read_text("utf-8")
        if dialect == "postgres" and match["only"] is None:
            text = postgres_schema(text)
        number = int(match["number"])
        # The step for both comes first, whatever the files are called.
        parts = (steps.get(number, ""), text)
        steps[number] = "\n".join(parts if match["only"] else reversed(parts))
    return steps


def postgres_schema(text: str) -> str:
    """Spell a step of the schema for PostgreSQL."""
    for pattern, replacement in _POSTGRES_TYPES:
        text = pattern.sub(replacement, text)
    return text


def numbered(text: str) -> tuple[str, tuple[str, ...]]:
    """Spell `:name` parameters as `$1`; the names in the order of their numbers."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PARAMETER.sub(number, text), tuple(names)
