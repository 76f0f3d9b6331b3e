"""Run the tests in the order in which they fail fastest: `python -m tests [check|unit|real|long]`.

Each stage prints its time. The real stage counts the tests that ran: where engines cannot be
started that is a failure, never a skip.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = ROOT / ".venv" / "bin"

CHECKS = (
    ("format", [str(BIN / "ruff"), "format", "--check", "."]),
    ("lint", [str(BIN / "ruff"), "check", "."]),
    ("types", [str(BIN / "mypy")]),
    ("rooms", [str(BIN / "lint-imports"), "--no-logo"]),
)
PYTEST = [str(BIN / "python"), "-m", "pytest", "-q", "--durations=10"]
UNIT = ("unit, property, contract, simulation, house", [*PYTEST, "-m", "not real"])
REAL = ("real engines", [*PYTEST, "-m", "real and not long", "-x"])
LONG = ("real engines, the long walks", [*PYTEST, "-m", "long"])
STAGES = {
    "check": (*CHECKS, UNIT),
    "unit": (UNIT,),
    "real": (REAL,),
    "long": (LONG,),
    "all": (*CHECKS, UNIT, REAL),
}


def main() -> int:
    """Run the stages; the first failure ends the run with its exit code."""
    name = sys.argv[1] if len(sys.argv) > 1 else "all"
    if name not in STAGES:
        print(f"no stage {name!r}; there are {', '.join(STAGES)}", file=sys.stderr)
        return 64
    extra = sys.argv[2:]
    began = time.monotonic()
    for title, command in STAGES[name]:
        print(f"==> {title}", flush=True)
        start = time.monotonic()
        more = extra if command[: len(PYTEST)] == PYTEST else []
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        code = subprocess.run([*command, *more], cwd=ROOT, check=False, env=env).returncode
        print(f"==> {title}: {time.monotonic() - start:.0f} s", flush=True)
        if code != 0:
            print(f"==> {title} FAILED (exit code {code})", flush=True)
            return code
    print(f"==> all passed in {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
