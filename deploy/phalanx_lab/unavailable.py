"""The one way in which the outside world lets a lab down."""

from __future__ import annotations


class Unavailable(Exception):  # noqa: N818 - a state of the world, not a mistake of ours
    """Something outside this process did not do what was asked of it.

    `what` is the thing, `doing` what was being done to it, `hint` what the operator can do.
    """

    def __init__(self, what: str, doing: str, hint: str) -> None:
        super().__init__(f"{what}: {doing}. {hint}" if hint else f"{what}: {doing}.")
        self.what = what
        self.doing = doing
        self.hint = hint
