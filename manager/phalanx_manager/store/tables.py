"""What the store wants of a database, whichever it is: read rows, and commit changes in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Row = Sequence[Any]


class Refused(Exception):  # noqa: N818 - the database's answer
    """A change breaks a rule of the schema, or the rows are not as we know them: a bug of ours."""


class Clash(Refused):
    """It would take what another has, or change what is not any more as it was seen."""


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
            raise Clash(f"{self.name}: {changed} rows instead of {self.exactly} would change")


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


@dataclass(frozen=True, slots=True)
class Change:
    """A change on its way into the database."""

    writes: Writes
    settled: Settled
    done: asyncio.Future[None]

    def end(self, error: Exception | None = None) -> None:
        """Tell what became of it."""
        self.settled(error is None)
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # whoever waited for it may have gone, which is no bug


class Tables(Protocol):
    """A database with our schema.

    Raises:
        Unavailable: from both, when it cannot answer.
    """

    async def read(self, name: str, values: Mapping[str, object], tail: str = "") -> list[Row]:
        """Read all rows of a named statement, as committed; `tail` is a constant of our code."""

    def commit(self, writes: Writes, settled: Settled) -> asyncio.Future[None]:
        """Put a change in the queue, behind those before it; done when it is durable.

        Changes that wait at the same time share one transaction; one that is refused does not
        harm the others. Await it by `asyncio.shield`: it cannot be taken back.

        Raises:
            Refused: in the future: it breaks a rule of the schema; `Clash` when others may have
                been quicker.
        """
