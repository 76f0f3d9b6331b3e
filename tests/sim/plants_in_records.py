"""Bugs on purpose in what the manager writes down of kernels and of how sessions end."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from phalanx_manager.core import clusters, forget, govern, observe
from phalanx_manager.core.model import Kernel, Session
from phalanx_manager.core.observe import KernelChange
from phalanx_manager.core.session import settle
from phalanx_manager.store import work
from phalanx_wire.api import ENDED_STATES
from phalanx_wire.control import KernelReport
from phalanx_wire.lifecycle import ENDED, KernelState, Owner
from tests.sim import world
from tests.sim.plant import Plant

_moved = observe.moved
_kernel_change: Callable[[Kernel, KernelReport, datetime], KernelChange | str | None]
_kernel_change = vars(observe)["_kernel_change"]
_fresh_database: Callable[[], sqlite3.Connection] = vars(world)["_fresh_database"]

_MOVED: Final = tuple((where, "moved") for where in (clusters, forget, govern, observe))


def _by_the_last_word(
    known: Kernel, report: KernelReport, now: datetime
) -> KernelChange | str | None:
    if known.ended or report.state >= known.state:
        return _kernel_change(known, report, now)
    after = replace(known, state=report.state, state_at=now)
    return KernelChange(known.state, (report.state,), Owner.AGENT, after, ("It went back.",))


def _any_step(_current: KernelState, target: KernelState, _owner: Owner) -> KernelState:
    return target


def _without_history() -> sqlite3.Connection:
    """A database that lets kernels take any step."""
    connection = _fresh_database()
    connection.execute("DROP TRIGGER kernel_moved")
    return connection


def _ends_again(kernel: Kernel, steps: Sequence[KernelState], now: datetime) -> Kernel:
    after = _moved(kernel, steps, now)
    return replace(after, ended_as=after.state) if after.state in ENDED else after


def _never_ends(kernel: Kernel, steps: Sequence[KernelState], now: datetime) -> Kernel:
    return replace(_moved(kernel, steps, now), ended_as=None)


def _judges_again(session: Session, kernels: Sequence[Kernel], now: datetime) -> Session:
    if session.state not in ENDED_STATES:
        return settle(session, kernels, now)
    open_again = replace(session, state="stopping", failed_rank=None)
    as_they_are = [replace(kernel, ended_as=kernel.state) for kernel in kernels]
    return settle(open_again, as_they_are, now)


PLANTS_IN_RECORDS: Final = (
    Plant(
        "an older report of a kernel is believed",
        ((observe, "_kernel_change"),),
        _by_the_last_word,
        " went back to ",
        besides=(
            (work, "advance", _any_step),
            (world, "_fresh_database", _without_history),
        ),
    ),
    Plant(
        "what is removed has ended as removed",
        _MOVED,
        _ends_again,
        "the outcome of ",
    ),
    Plant(
        "nobody notes how a kernel has ended",
        _MOVED,
        _never_ends,
        "the exit of ",
    ),
    Plant(
        "a session that has ended is judged again",
        ((work, "settle"),),
        _judges_again,
        " had ended as ",
    ),
)
