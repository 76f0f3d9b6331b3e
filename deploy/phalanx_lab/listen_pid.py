"""Becomes another program that believes, rightly, that its inherited socket is meant for it.

Socket activation names the receiver by its pid, which is known only inside the new process. Run by
its path and with nothing else imported: `python listen_pid.py PROGRAM ARGUMENTS...`.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is what we want
