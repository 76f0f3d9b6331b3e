"""What there is to say about a file, and what its parts want."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

Read = Callable[[str], str | None]
"""Reads a file that another one names; None where there is none."""


class Finding(msgspec.Struct, frozen=True):
    """One mismatch.

    Attributes:
        line: counts from 1; 0 is the file as a whole.
        code: for programs, never changed.
    """

    file: str
    line: int
    code: str
    text: str
    hint: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable that a file sets."""

    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Job:
    """What starts programs; None is what nobody says.

    Attributes:
        slurm: it is a batch script: one task runs it, `srun` starts the others.
        nodes: how many hosts, or containers of which each is one.
        tasks: processes that are started on each of them.
        size: how many processes there are in all, one per container.
        port: of the rendezvous.
    """

    file: str
    slurm: bool = False
    nodes: int | None = None
    tasks: int | None = None
    size: int | None = None
    port: int | None = None
    lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def many(self) -> bool:
        """Whether the ranks are on several hosts, as far as is known."""
        return (self.nodes or 1) > 1 or (self.size or 1) > 1

    def line(self, name: str) -> int:
        """Where something is asked for."""
        return self.lines.get(name, 0)


@dataclass(frozen=True, slots=True)
class Start:
    """A command that a job runs.

    Attributes:
        srun: by `srun`, so as often as there are tasks.
        settings: variables that are set where it is started.
    """

    argv: tuple[str, ...]
    line: int
    srun: bool = False
    settings: Mapping[str, Setting] = field(default_factory=dict)
