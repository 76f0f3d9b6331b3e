"""What a kernel's command is told before it is stopped."""

from __future__ import annotations

import msgspec


class Notice(msgspec.Struct, frozen=True):
    """A signal that a kernel's command hears once before it is stopped.

    Attributes:
        id: never that of another notice to the same kernel.
        tasks: the tasks of steps hear it, not the command.
    """

    id: str
    signal: int
    tasks: bool = False
