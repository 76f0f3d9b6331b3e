"""What goes wrong on the link."""

from __future__ import annotations


class Unavailable(Exception):  # noqa: N818 - it names the condition, as in every room
    """An agent cannot be reached, or the link cannot be set up.

    Attributes:
        what: the agent, address or file.
        doing: what was tried.
        hint: what to do.
    """

    def __init__(self, what: str, doing: str, hint: str = "") -> None:
        super().__init__(f"{what}: {doing}" + (f"; {hint}" if hint else ""))
        self.what, self.doing, self.hint = what, doing, hint
