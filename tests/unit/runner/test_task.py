"""What tasks begin with."""

from __future__ import annotations

import os
import pty
import struct
import termios
import time
from fcntl import ioctl
from pathlib import Path

WITHIN_S = 10.0


def sleeps(pid: int) -> bool:
    """Whether the program that a task begins with is there still, and waits."""
    name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return "(phalanx-task" in name and rest.split()[0] == "S"


def test_a_command_begins_when_its_terminal_has_a_size(programs: Path) -> None:
    task = str(programs / "libexec" / "phalanx-task")
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execv(task, [task, "", "", "", "", "stty", "size"])  # noqa: S606
        finally:
            os._exit(127)  # not to go on as a second run of all tests
    deadline = time.monotonic() + WITHIN_S
    while not sleeps(pid):
        assert time.monotonic() < deadline
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    said = os.read(terminal, 100)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)

    assert (0, b"33 101\r\n") == (code, said)
