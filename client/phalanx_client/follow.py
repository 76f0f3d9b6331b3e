"""Lines of output as they are printed, and following a session to its end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from types import FrameType

from phalanx_client import ansi, output
from phalanx_client.blocking import finish
from phalanx_client.failure import INTERRUPTED, OK
from phalanx_client.session import Client, reached
from phalanx_wire.api import EventView, LogEvent, SessionView

STATE_S = 1.0
"""How often a slow start is asked what it does; the end of the wait itself comes at once."""
TIMED_OUT = 124
FAILED = 1


class Printer:
    """Prints lines of a session: `[2 sub2] text`, each to the stream that it was written to.

    On a terminal the prefix has its rank's colour, and escapes that are no colour are dropped;
    elsewhere a line is passed on as it is.
    """

    def __init__(self, view: SessionView, *, prefix: bool, times: bool = False) -> None:
        names = [len(f"{kernel.rank} {kernel.host_name}") for kernel in view.kernels]
        self._width = max(names, default=0) + 2
        self._prefix = prefix
        self._times = times
        self._coloured = {stream: output.coloured(stream) for stream in (sys.stdout, sys.stderr)}

    def line(self, event: LogEvent) -> None:
        """Print one."""
        stream = sys.stderr if event.stderr else sys.stdout
        text = ansi.colours_only(event.text) if stream.isatty() else event.text
        colour = self._coloured[stream]
        if colour and "\x1b[" in text:
            text += ansi.RESET
        head = ""
        if self._times:
            seconds, rest = divmod(event.at_ns, 10**9)
            head = f"{output.clock(seconds)}.{rest // 10**6:03d}Z "
        if self._prefix:
            name = f"[{event.rank} {event.host_name}]"
            shown = ansi.painted(name, event.rank) if colour else name
            head += shown + " " * (self._width - len(name) + 1)
        stream.write(f"{head}{text}\n")
        stream.flush()


def news(view: SessionView, event: EventView) -> str:
    """Spell what happens to a session beside its output."""
    return ansi.escape(f"phalanx: {view.name}: {event.text}")


class Follower:
    """Follows one session from its start to its end; the first Ctrl-C stops the session."""

    def __init__(self, client: Client, view: SessionView, *, quiet: bool, prefix: bool) -> None:
        self._client = client
        self._view = view
        self._quiet = quiet
        self._prefix = prefix
        self._said = ""
        client.news = self._say_news

    async def to_the_end(self) -> SessionView:
        """Print everything; the session as it ended.

        Raises:
            KeyboardInterrupt: at the second Ctrl-C; the session goes on stopping without us.
        """
        with self._stopped_by_interrupt():
            await self.to_the_start()
            await self._print_lines()
            view = await self._client.wait(self._view.id, "ended")
            assert view is not None  # noqa: S101 - it was waited for without a limit
            return view

    @contextmanager
    def _stopped_by_interrupt(self) -> Iterator[None]:
        """Make the first Ctrl-C a stop of the session.

        The handler runs between two reads of the stream that is being followed, and sends its own
        request meanwhile, so that no line is lost or told twice.
        """
        before = signal.signal(signal.SIGINT, self._interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupted(self, _number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        finish(self._client.stop(self._view.id))  # before it is promised
        output.note(
            f"\nstopping {self._view.name}; Ctrl-C again leaves at once and lets it stop by itself"
        )

    async def to_the_start(self) -> SessionView:
        """Wait until it runs or has ended, and say on the way what it waits for."""
        while not reached(self._view, "running"):
            self._say_state()
            self._view = await self._client.look(self._view.id, "running", STATE_S)
        return self._view

    def _say_state(self) -> None:
        reason = f": {self._view.reason}" if self._view.reason else ""
        text = ansi.escape(f"{self._view.name} is {self._view.state}{reason}")
        if text != self._said:
            output.note(text, quiet=self._quiet)
            self._said = text

    def _say_news(self, event: EventView) -> None:
        output.note(news(self._view, event), quiet=self._quiet)

    async def _print_lines(self) -> None:
        printer = Printer(self._view, prefix=self._prefix)
        lines = self._client.logs(self._view.id, follow=True)
        async with aclosing(lines):
            async for _, event in lines:
                printer.line(event)
        for sentence in self._client.missing:
            output.note(ansi.escape(f"phalanx: {sentence}"), quiet=self._quiet)


def exit_code(view: SessionView) -> int:
    """The exit code for a session that has ended: its own where it has one."""
    if view.exit_code is not None:
        return view.exit_code
    match view.state:
        case "succeeded":
            return OK
        case "cancelled":
            return INTERRUPTED
        case "timeout":
            return TIMED_OUT
        case _:
            return FAILED


def explain_end(view: SessionView, *, quiet: bool) -> None:
    """Say why a session did not succeed."""
    if view.state != "succeeded":
        reason = f": {view.reason}" if view.reason else ""
        output.note(ansi.escape(f"phalanx: session {view.name} {_end(view)}{reason}"), quiet=quiet)


def _end(view: SessionView) -> str:
    match view.state:
        case "cancelled":
            return "was cancelled"
        case "timeout":
            return "reached its time limit"
        case state:
            return state
