"""A person at a terminal: types, resizes, reads what is shown."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fcntl import ioctl

PROMPT = r"[$#] $"
WITHIN_S = 60.0


class Screen:
    """What a terminal shows, and the program on it."""

    def __init__(self, pid: int, terminal: int) -> None:
        self.pid = pid
        self.terminal = terminal
        self.text = ""
        self.code: int | None = None

    def await_text(self, pattern: str) -> str:
        """Read until it is shown, and give what matched; what was before is forgotten."""
        deadline = time.monotonic() + WITHIN_S
        while (found := re.search(pattern, self.text)) is None:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self.terminal], [], [], left)[0], self.text
            self.text += os.read(self.terminal, 4096).decode(errors="replace")
        self.text = self.text[found.end() :]
        return found[0]

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def ended(self) -> int:
        """Wait for the program's end; its exit code."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code


@contextmanager
def at_a_terminal(argv: Sequence[str], env: Mapping[str, str]) -> Iterator[Screen]:
    """Run a program on a terminal of 33 rows and 101 columns, to its end."""
    pid, terminal = pty.fork()
    if pid == 0:
        ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        os.execvpe(argv[0], list(argv), {**os.environ, **env})  # noqa: S606
    screen = Screen(pid, terminal)
    try:
        yield screen
    finally:
        os.close(terminal)  # hangs up
        screen.ended()
