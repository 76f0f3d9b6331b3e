"""Commands of the machine, run with a bound on their time and with their errors kept."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence

from phalanx_lab.unavailable import Unavailable

SHOW_EVERY = 5.0


def run(
    argv: Sequence[str], *, stdin: str = "", timeout: float = 30, env: dict[str, str] | None = None
) -> str:
    """Standard output of a command that must succeed; `Unavailable` with its last words if not."""
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=None if env is None else os.environ | env,
        )
    except FileNotFoundError as gone:
        raise Unavailable(argv[0], "is not installed", "Run `phalanx lab doctor`.") from gone
    except subprocess.TimeoutExpired as slow:
        raise Unavailable(
            " ".join(argv), f"did not end within {timeout:g} s", "The machine may be overloaded."
        ) from slow
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(
            " ".join(argv), f"failed with code {done.returncode}", " / ".join(said[-3:])
        )
    return done.stdout


def succeeds(argv: Sequence[str], *, timeout: float = 30) -> bool:
    """Whether a command that only asks a question says yes."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def mounts_under(folder: str) -> list[str]:
    """Mount points of this mount namespace at or below a folder, the deepest and latest first."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            point = line.split(" ")[4].encode("latin-1", "surrogateescape")
            place = point.decode("unicode_escape")
            if place == folder or place.startswith(folder + "/"):
                found.append(place)
    return found[::-1]


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def show(argv: Sequence[str], report: Callable[[str], None], *, timeout: float) -> None:
    """Run a command that takes long, and report its latest line now and then."""
    last: deque[str] = deque(maxlen=5)
    deadline = time.monotonic() + timeout
    reported = time.monotonic()
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        if process.stdout is None:
            raise AssertionError("a pipe was asked for")
        for line in process.stdout:
            last.append(line.strip())
            now = time.monotonic()
            if now > deadline:
                process.kill()
            if line.strip() and now - reported > SHOW_EVERY:
                report(f"  {line.strip()[:100]}")
                reported = now
    if process.returncode != 0:
        raise Unavailable(argv[0], f"failed with code {process.returncode}", " / ".join(last))
