"""Phalanx as its users have it: our wheel and what it needs, in an environment of its own.

What else a checkout's environment has would be measured as ours: structlog loads `rich` where it
finds it, and modules that are compiled as they are imported leave their compiler's memory behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cache" / "bench"
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq")


def enter(arguments: list[str]) -> None:
    """Go on as `python -m tests.bench ARGUMENTS` of that environment, made anew; a process that
    is there already comes back.
    """
    python = FOLDER / "env" / "bin" / "python"
    if sys.prefix == str(FOLDER / "env"):
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    print("install Phalanx as its users do", flush=True)
    _must(*_PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(FOLDER), str(ROOT))
    (wheel,) = FOLDER.glob("*.whl")
    _must(sys.executable, "-m", "venv", "--without-pip", str(FOLDER / "env"))
    wanted = f"{wheel}[client,manager,agent]"
    _must(*_PIP, "--python", str(python), "install", "--compile", wanted)
    os.chdir(ROOT)
    os.execv(python, [str(python), "-m", "tests.bench", *arguments])  # noqa: S606 - becomes it


def _must(*command: str) -> None:
    subprocess.run(command, check=True, timeout=300)
