"""Run command lines of Oumi, each in a process of its own, forked from one that has imported it.

The import takes ten seconds of a core, which a test would pay for each `oumi launch`. Command lines
are JSON lists on stdin, one a line: of `oumi`, or of a Python file. Answers are JSON lists on
stdout: the exit code, and everything that was said.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import tempfile

from oumi.cli.main import run
from oumi.core.registry import REGISTRY, RegistryType

CALL_S = 150


def become(argv: list[str], said: int) -> None:
    """Be that command line, to the end of this process."""
    signal.alarm(CALL_S)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = argv
    if argv[0] == "oumi":
        run()
    else:
        runpy.run_path(argv[0], run_name="__main__")
    sys.exit()


answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Oumi logs there
REGISTRY.get_all(RegistryType.CLOUD)  # the rest of what takes its time, and our cloud
for line in sys.stdin:
    with tempfile.TemporaryFile() as said:
        process = os.fork()
        if process == 0:
            become(json.loads(line), said.fileno())
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        said.seek(0)
        print(json.dumps([code, said.read().decode(errors="replace")]), file=answers, flush=True)
