"""The main job, end to end: a two-host lab, a real training over it, a look around.

Every step is a command that a user could type; it is printed before it runs. What takes long shows
its own progress. A second run finds everything in place and takes seconds.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PHALANX = ".venv/bin/phalanx"


def run(why: str, *command: str) -> None:
    """Print a command and why it comes now, run it, and end with its code if it fails."""
    print(f"\n\033[1m==> {why}\033[0m\n    $ {' '.join(command)}", flush=True)
    began = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    print(f"    {time.monotonic() - began:.1f} s", flush=True)
    if code != 0:
        print(
            f"quickstart: that command ended with code {code}. The lab's own logs: "
            f"{PHALANX} lab logs; start over: {PHALANX} lab down && make quickstart",
            file=sys.stderr,
        )
        sys.exit(code)


def main() -> None:
    """Bring up, train, look, say what is next."""
    upload = str(HERE.relative_to(ROOT))
    run("a lab: two Docker Engines, one swarm, a manager, two agents",
        PHALANX, "lab", "up", "--nodes", "2")  # fmt: skip
    run("an image with PyTorch on both engines", PHALANX, "lab", "load", "torch")
    run("train on four containers over two hosts",
        PHALANX, "run", "-N", "4", "--mode", "multi-node", "-i", "phalanx/torch",
        "--upload", upload, "--", "python3", "train.py")  # fmt: skip
    run("four containers on one host: what a script finds there",
        PHALANX, "run", "-N", "4", "--mode", "single-node", "-i", "phalanx/torch",
        "--run-on", "main", "--upload", upload, "--", "sh", "look.sh")  # fmt: skip
    print(
        f"""
\033[1mIt works.\033[0m Try next:
    {PHALANX} create -N 3 --mode multi-node -J demo -i phalanx/torch   # three containers, to stay
    {PHALANX} ssh demo/main1                                           # a shell in one; try: ssh sub2
    {PHALANX} env demo                                                 # what each rank sees, who reads it

Take it all down, so that the machine is as before:
    {PHALANX} lab down""",
        flush=True,
    )


if __name__ == "__main__":
    main()
