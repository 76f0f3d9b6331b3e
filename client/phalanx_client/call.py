"""One use of a verb: its options, and what it needs of the outside."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from phalanx_client import config, output
from phalanx_client.arguments import Parser
from phalanx_client.connection import plain_client
from phalanx_client.failure import Away, Unavailable
from phalanx_client.output import Form
from phalanx_client.session import Client

PATIENCE_S = 300.0
"""How long a command that waits or follows endures a manager that is restarted."""


class Call:
    """One use of a verb."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    @property
    def form(self) -> Form:
        """How the result shall look."""
        return cast("Form", self.options.output)

    @property
    def quiet(self) -> bool:
        """Only the result, nothing beside it."""
        return bool(self.options.quiet)

    @property
    def now(self) -> datetime:
        """The time."""
        return datetime.fromtimestamp(time.time(), UTC)

    def manager(self) -> config.Manager:
        """The manager that is meant; a warning about its configuration is told once."""
        found = config.find(self.options.url, self.options.token, os.environ)
        if found.warning:
            output.note(f"phalanx: warning: {found.warning}", quiet=self.quiet)
        return found

    def client(self, *, patient: bool = False) -> Client:
        """A client to be awaited without an event loop."""
        patience = PATIENCE_S if patient else 0.0
        return plain_client(self.manager(), patience_s=patience, on_wait=self.away)

    def away(self, trouble: Unavailable | Away) -> None:
        """Say that the manager is away, and that this is being waited for."""
        output.note(f"phalanx: {trouble.what}: {trouble.doing}; trying again", quiet=self.quiet)

    def show(self, view: object, text: Callable[[], str], names: list[str]) -> None:
        """Print a view in the form that was asked for; `text` makes the one for people."""
        if self.form == "name":
            output.names(names)
            return
        output.say(output.data(view, self.form) or text())


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the command line.

    Attributes:
        usage: as in `phalanx USAGE`.
        command: `last`: all after the first word that is no option is a command; `dashes`: all
            after `--`, where there is one; `after`: only what is after `--`.
        loop: it needs an event loop.
    """

    usage: str
    declare: Callable[[Parser], None]
    run: Callable[[Call], Coroutine[Any, Any, int]]
    command: Literal["", "last", "dashes", "after"] = ""
    loop: bool = False
