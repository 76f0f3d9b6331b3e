"""Points at which a daemon dies, freezes or fails: before and after each call of its ports.

A daemon's test-only entry (`failing_agent`, `failing_manager`) wraps the calls; a test arms a point
by making its file in the daemon's folder. The file goes when the point is passed, so that the
process that comes next goes on.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

Mode = Literal["kill", "hang", "raise"]
When = Literal["before", "after"]
SIGNALS: Mapping[Mode, signal.Signals] = {"kill": signal.SIGKILL, "hang": signal.SIGSTOP}
MODES: tuple[Mode, ...] = ("kill", "hang")
"""How walks hurt a daemon. None of them has `raise`, which is a bug of ours."""
MOMENTS: tuple[When, ...] = ("before", "after")


@dataclass(frozen=True)
class Port:
    """A protocol, who answers to it, and which of its calls change nothing outside."""

    room: str
    protocol: type
    answers: type
    reads: frozenset[str]

    def __post_init__(self) -> None:
        unknown = self.reads - self.methods
        assert not unknown, f"{self.protocol.__name__} has no {', '.join(sorted(unknown))}"

    @property
    def methods(self) -> frozenset[str]:
        """All that can be called."""
        return frozenset(
            name
            for name, member in vars(self.protocol).items()
            if inspect.isfunction(member) and not name.startswith("_")
        )

    @property
    def calls(self) -> tuple[str, ...]:
        """What changes the world outside, as `room.method`."""
        return tuple(f"{self.room}.{name}" for name in sorted(self.methods - self.reads))

    def wrap(self, folder: Path) -> None:
        """Put points around the calls."""
        for call in self.calls:
            name = call.partition(".")[2]
            setattr(self.answers, name, _passing(getattr(self.answers, name), folder, call))


@dataclass(frozen=True, order=True)
class Point:
    """Where a process dies, freezes or fails."""

    call: str
    when: When
    mode: Mode

    def file(self, folder: Path) -> Path:
        """What arms it."""
        return folder / f"failpoint.{self.call}.{self.when}.{self.mode}"

    def arm(self, folder: Path) -> None:
        """Let the daemon that has this folder die, freeze or fail there once."""
        self.file(folder).touch()

    def is_armed(self, folder: Path) -> bool:
        """Whether nobody has passed yet."""
        return self.file(folder).exists()

    def disarm(self, folder: Path) -> None:
        """Let all pass."""
        self.file(folder).unlink(missing_ok=True)


def points(calls: Collection[str]) -> list[Point]:
    """Every moment of every call, in every way."""
    return [Point(call, when, mode) for when, mode, call in product(MOMENTS, MODES, calls)]


def _passing(call: Callable[..., Any], folder: Path, name: str) -> Callable[..., Any]:
    modes: tuple[Mode, ...] = get_args(Mode)
    files = {
        when: [(Point(name, when, mode).file(folder), mode) for mode in modes] for when in MOMENTS
    }

    def gate(when: When) -> None:
        for file, mode in files[when]:
            try:
                os.unlink(file)
            except FileNotFoundError:
                continue
            if mode == "raise":
                raise RuntimeError(f"a bug at {name}")
            os.kill(os.getpid(), SIGNALS[mode])

    @functools.wraps(call)
    async def awaited(*given: Any, **named: Any) -> Any:
        gate("before")
        try:
            return await call(*given, **named)
        finally:
            gate("after")

    @functools.wraps(call)
    def called(*given: Any, **named: Any) -> Any:
        gate("before")
        try:
            return call(*given, **named)
        finally:
            gate("after")

    return awaited if inspect.iscoroutinefunction(call) else called
