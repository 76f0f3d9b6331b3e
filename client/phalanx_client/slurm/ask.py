"""What all of SLURM's programs need: a client, and jobs by their names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from phalanx_client import config
from phalanx_client.ansi import escape
from phalanx_client.blocking import finish
from phalanx_client.connection import plain_client
from phalanx_client.failure import NOT_FOUND, Failure, Refused
from phalanx_client.session import Client
from phalanx_client.slurm.site import Settings, here, settings
from phalanx_slurm.arrays import JobRef
from phalanx_slurm.jobs import Job, in_order, job, picked
from phalanx_slurm.nodelist import expand

_PARTS: Final = re.compile(r"([\t\n])")
PATIENCE_S: Final = 60.0
"""How long a manager that is restarted is waited for."""
TIME_FORMAT: Final = "SLURM_TIME_FORMAT"
MOST: Final = 10_000
"""So many jobs are looked through, the newest."""


class Asker:
    """One use of a program."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.said: Settings = settings(os.environ)

    def manager(self) -> config.Manager:
        """The manager that is meant.

        Raises:
            Failure: none is named anywhere.
        """
        try:
            return config.find(None, None, os.environ)
        except Failure:
            if not self.said.url:
                raise
            return config.find(self.said.url, None, os.environ)

    def client(self) -> Client:
        """A client that `finish` can run."""
        return plain_client(self.manager(), patience_s=PATIENCE_S)

    def note(self, text: str) -> None:
        """Tell a person something beside the result."""
        print(f"{self.program}: {shown(text)}", file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """Spell what could steer a terminal: names and reasons come from elsewhere. Tabs and line ends
    stay, of which a format may be made.
    """
    return "".join(part if part in ("\t", "\n") else escape(part) for part in _PARTS.split(text))


def through(coroutine: Coroutine[Any, Any, int]) -> int:
    """Run a program that only asks and waits, without an event loop."""
    return finish(coroutine)


def local_now() -> datetime:
    """The time, in this machine's zone."""
    from time import time  # noqa: PLC0415 - the one look at the clock

    return datetime.fromtimestamp(time()).astimezone()


async def all_jobs(client: Client, states: Iterable[str] = (), *, ended: bool) -> list[Job]:
    """Jobs by number: the live ones, with `ended` also those that are over."""
    found = await client.sessions(states, ended=ended, limit=MOST)
    return in_order([job(view) for view in found.sessions])


async def named(client: Client, refs: Sequence[JobRef]) -> dict[JobRef, list[Job]]:
    """Find the jobs that are meant by each; none where there is none."""
    found: dict[JobRef, list[Job]] = {}
    everything: list[Job] | None = None
    for ref in refs:
        one = await by_number(client, ref.job)
        if one is None or one.task is None:
            found[ref] = [one] if one is not None and ref.tasks is None else []
            continue
        if everything is None:
            everything = await all_jobs(client, ended=True)
        found[ref] = picked(everything, ref)
    return found


async def by_number(client: Client, number: int) -> Job | None:
    """Find a job by its number alone: a session's name may be a number, too."""
    try:
        found = job(await client.session(str(number)))
    except Refused as refused:
        if refused.exit_code == NOT_FOUND or refused.problem.status == 409:
            return None
        raise
    return found if found.number == number else None


def chosen(jobs: Iterable[Job], *tests: Callable[[Job], bool]) -> list[Job]:
    """Keep those that pass all tests."""
    return [one for one in jobs if all(test(one) for test in tests)]


def among(text: str | None, value: Callable[[Job], str]) -> Callable[[Job], bool]:
    """Make the test of a list such as `ada,bob`; None takes all."""
    wanted = None if text is None else {part.strip() for part in text.split(",")}
    return lambda one: wanted is None or value(one) in wanted


def on_hosts(text: str | None) -> Callable[[Job], bool]:
    """Make the test of a list of hosts; None takes all."""
    wanted = None if text is None else set(expand(text))
    return lambda one: wanted is None or bool(wanted & set(one.hosts))


def own_name() -> str:
    """Who asks, on this machine."""
    return here(Settings(), os.environ).user[0]
