"""`python -m phalanx_client.slurm sbatch ...`: what the installed launchers run."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Final

from phalanx_client.__main__ import end_of
from phalanx_client.ansi import escape
from phalanx_client.failure import Failure
from phalanx_slurm import show
from phalanx_slurm.wrong import WrongError
from phalanx_wire.standard import fill_standard_streams

PROGRAMS: Final = ("sbatch", "srun", "salloc", "squeue", "scancel", "scontrol", "sinfo", "sacct")
VERSION: Final = f"slurm {show.VERSION}"
"""Of the programs whose options and output these have."""
FAILED: Final = 1


def main() -> int:
    """Run a program; its exit code. SLURM's know 0 and 1, and the code of what they ran."""
    fill_standard_streams()
    program, *argv = sys.argv[1:] or [""]
    if program not in PROGRAMS:
        print(f"phalanx: write one of: {' '.join(PROGRAMS)}", file=sys.stderr)
        return FAILED
    return end_of(lambda: run(program, argv), lambda text, _code: explain(program, text))


def run(program: str, argv: list[str]) -> int:
    """Run a program.

    Raises:
        Failure: it can't be done; the sentence is for the user.
    """
    if argv and argv[0] in ("-V", "--version"):
        print(VERSION)
        return 0
    module = importlib.import_module(f"phalanx_client.slurm.{program}")
    try:
        code: int = module.main(argv)
    except WrongError as wrong:
        raise Failure(str(wrong), FAILED) from wrong
    return code


def explain(program: str, text: str) -> int:
    """Say why it failed, in SLURM's voice."""
    if os.environ.get("PHALANX_DEBUG"):
        traceback.print_exc()
    lines = [f"{program}: error: {escape(line)}" for line in text.split("\n")]
    print("\n".join(lines), file=sys.stderr, flush=True)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
