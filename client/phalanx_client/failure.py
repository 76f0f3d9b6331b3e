"""How a command fails: with a sentence and an exit code, never with a stack trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from phalanx_wire.api import Problem

OK: Final = 0
USAGE: Final = 64
BAD_INPUT: Final = 65
NOT_FOUND: Final = 66
UNAVAILABLE: Final = 69
TRY_AGAIN: Final = 75
NOT_PERMITTED: Final = 77
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141


class Failure(Exception):  # noqa: N818 - the end of a command, not a mistake of ours
    """The command can't be done; the text says what happened, to what, and what to do."""

    def __init__(self, text: str, exit_code: int = BAD_INPUT) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Unavailable(Failure):
    """Something outside this process did not do what was asked of it.

    Args:
        what: the thing, e.g. the manager's address.
        doing: what went wrong with it.
        hint: what the user can do.
    """

    def __init__(self, what: str, doing: str, hint: str) -> None:
        super().__init__(f"{what}: {doing}. {hint}".rstrip(), UNAVAILABLE)
        self.what = what
        self.doing = doing
        self.hint = hint


class Broken(Unavailable):
    """The connection broke or fell silent; whether the request was heard is not known."""


class Refused(Failure):
    """The manager said no; `problem` is its answer."""

    def __init__(self, problem: Problem) -> None:
        named = not problem.field or problem.field in problem.title
        where = "" if named else f"{problem.field}: "
        hint = f"\n  {problem.hint}" if problem.hint else ""
        super().__init__(f"{where}{problem.title}{hint}", exit_code_of(problem.status))
        self.problem = problem


class Away(Refused):
    """The manager is there, and something that it needs is not: its database, or an agent. Whether
    what was asked has been done is not known.
    """

    what = "the manager"

    @property
    def doing(self) -> str:
        """What went wrong."""
        return self.problem.title


def exit_code_of(status: int) -> int:
    """The exit code for a refusal with this HTTP status."""
    match status:
        case 401 | 403:
            return NOT_PERMITTED
        case 404 | 410:
            return NOT_FOUND
        case 408 | 429 | 503 | 504:
            return TRY_AGAIN
        case _ if status >= 500:
            return UNAVAILABLE
        case _:
            return BAD_INPUT
