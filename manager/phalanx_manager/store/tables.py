"""What the store wants of a database, whichever it is: read rows, and commit changes in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from phalanx_manager.store.port import Unavailable

Row = Sequence[Any]


class Refused(Exception):  # noqa: N818 - the database's answer
    """A change breaks a rule of the schema, or the rows are not as we know them: a bug of ours."""


class Deposed(Unavailable):
    """Another manager leads: nothing of this change, and of none after it, is in the database."""


@dataclass(frozen=True, slots=True)
class Write:
    """One named statement, for each of the values.

    Attributes:
        exactly: how many rows must change in all; None where any number will do. Another number
            means that the database is not as we know it: nothing of the commit may be written.
    """

    name: str
    values: tuple[Mapping[str, object], ...]
    exactly: int | None = None

    def check(self, changed: int) -> None:
        """Refuse when another number of rows has changed."""
        if self.exactly is not None and changed != self.exactly:
            raise Refused(f"{self.name}: {changed} rows instead of {self.exactly} would change")


class Writes:
    """The statements of one change, in order; made in memory, written together."""

    def __init__(self) -> None:
        self.all: list[Write] = []

    def run(self, name: str, values: Mapping[str, object], *, exactly: int | None = None) -> None:
        """Add a statement."""
        self.all.append(Write(name, (values,), exactly))

    def run_many(
        self, name: str, values: Iterable[Mapping[str, object]], *, exactly: int | None = None
    ) -> None:
        """Add a statement for each of many values."""
        many = tuple(values)
        if many:
            self.all.append(Write(name, many, exactly))


Settled = Callable[[bool], None]
"""Told in order what became of a change: True when it is durable, False when nothing of it is."""


class Tables(Protocol):
    """A database with our schema.

    Raises:
        Unavailable: from both, when it cannot answer.
    """

    async def read(self, name: str, values: Mapping[str, object], tail: str = "") -> list[Row]:
        """Read all rows of a named statement, as committed; `tail` is a constant of our code."""

    async def commit(self, writes: Writes, settled: Settled) -> None:
        """Write a change whole, behind those that were given before, and be durable then.

        Changes that wait at the same time share one transaction: when it fails, none of them is
        there. Cancelling the wait does not take the change back.
        """
