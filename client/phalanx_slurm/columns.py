"""The format languages of the listing programs: `%.18i %j`, `JobID:10,Name`, `JobID%20,State`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from phalanx_slurm.wrong import WrongError

T = TypeVar("T")
_LETTER: Final = re.compile(r"%(?P<right>\.?)#?(?P<width>[0-9]{0,4})(?P<letter>[a-zA-Z]|%)")
_NAMED: Final = re.compile(
    r"(?P<name>[A-Za-z_]+)(?:[:%](?P<right>[.-]?)(?P<width>[0-9]{0,4})[A-Za-z]*)?"
)


@dataclass(frozen=True)  # with slots, `Field[T](...)` fails: Python's own bug
class Field(Generic[T]):
    """One fact about a row, its heading, and how wide it is where no width is given."""

    heading: str
    value: Callable[[T], str]
    width: int = 20


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A field in a table; width 0 is as it comes. `before` is text in front of it."""

    field: Field[T]
    width: int = 0
    right: bool = False
    before: str = ""


@dataclass(frozen=True, slots=True)
class Layout(Generic[T]):
    """Columns, and the text after the last one."""

    columns: tuple[Column[T], ...]
    after: str = ""

    def heading(self) -> str:
        """The first line."""
        return self._line([column.field.heading for column in self.columns])

    def row(self, one: T) -> str:
        """A line."""
        return self._line([column.field.value(one) for column in self.columns])

    def _line(self, cells: Sequence[str]) -> str:
        placed = [
            f"{column.before}{_fitted(cell, column.width, right=column.right)}"
            for column, cell in zip(self.columns, cells, strict=True)
        ]
        return "".join(placed) + self.after


def letters(text: str, fields: Mapping[str, Field[T]]) -> Layout[T]:
    """Read `%.18i %.9P %j`: letters with widths; other text stays as it is.

    Raises:
        WrongError: there is no such letter.
    """
    columns: list[Column[T]] = []
    at, before = 0, ""
    for match in _LETTER.finditer(text):
        before += text[at : match.start()]
        at = match.end()
        if match["letter"] == "%":
            before += "%"
            continue
        field = fields.get(match["letter"])
        if field is None:
            raise WrongError(f"Invalid job format specification: {match['letter']}")
        columns.append(Column(field, int(match["width"] or 0), bool(match["right"]), before))
        before = ""
    return Layout(tuple(columns), before + text[at:])


def named(text: str, fields: Mapping[str, Field[T]], *, spaced: bool) -> tuple[Column[T], ...]:
    """Read `JobID:10,Name` (of queues) or `JobID%20,State` (of accounting): names in any case.

    `spaced` puts a blank between columns, as accounting does, and shortens with a `+`.

    Raises:
        WrongError: there is no such name.
    """
    columns: list[Column[T]] = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        match = _NAMED.fullmatch(part)
        field = fields.get(match["name"].lower()) if match else None
        if match is None or field is None:
            raise WrongError(f'Invalid field requested: "{part[:80]}"')
        width = int(match["width"] or 0) or field.width
        right = match["right"] == "." or (spaced and match["right"] != "-")
        columns.append(Column(field, width, right, " " if spaced and columns else ""))
    return tuple(columns)


def table(columns: Sequence[Column[T]], rows: Iterable[T], *, heading: bool) -> list[str]:
    """Spell aligned lines, as accounting does."""
    lines: list[str] = []
    if heading:
        lines.append(_cells(columns, [column.field.heading for column in columns]))
        lines.append(" ".join("-" * column.width for column in columns))
    lines += [_cells(columns, [column.field.value(row) for column in columns]) for row in rows]
    return lines


def parsable(
    columns: Sequence[Column[T]], rows: Iterable[T], mark: str, *, heading: bool, last: bool
) -> list[str]:
    """Spell lines with a mark between columns, and with `last` after the last one, too."""
    lines = [[column.field.heading for column in columns]] if heading else []
    lines += [[column.field.value(row) for column in columns] for row in rows]
    return [mark.join(cells) + (mark if last else "") for cells in lines]


def _cells(columns: Sequence[Column[T]], cells: Sequence[str]) -> str:
    placed: list[str] = []
    for column, cell in zip(columns, cells, strict=True):
        shown = cell if len(cell) <= column.width else cell[: column.width - 1] + "+"
        placed.append(shown.rjust(column.width) if column.right else shown.ljust(column.width))
    return " ".join(placed) + " "


def _fitted(cell: str, width: int, *, right: bool) -> str:
    if not width:
        return cell
    return cell[:width].rjust(width) if right else cell[:width].ljust(width)
