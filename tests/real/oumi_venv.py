"""An environment with the real Oumi, made once and kept: two gigabytes, two minutes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from phalanx_lab import recipes, status, wheels
from tests.real.ground import PROGRAMS, ROOT, Done

OUMI = "oumi==0.9"
# Oumi's own needs bring SkyPilot and builds for CUDA; these are what its launcher imports.
NEEDS = (
    "numpy<2.4", "typer<0.25.2", "pyyaml", "jsonlines", "pandas<3", "httpx", "requests", "posthog",
    "omegaconf==2.4.0.dev4", "huggingface_hub", "transformers<5.17", "jsonschema", "peft",
    "trl<1.7", "pexpect", "tensorboard", "pillow", "datasets", "pydantic<2.14", "wandb<0.26",
    "mlflow", "msgspec", "structlog",
)  # fmt: skip
INSTALL_S = 900


def python() -> str:
    """The Python that has it."""
    key = hashlib.sha256(str((OUMI, NEEDS, sys.version)).encode()).hexdigest()[:10]
    home = f"{recipes.cache()}/images"
    os.makedirs(home, exist_ok=True)
    folder = f"{home}/oumi-{key}"
    lock = status.Lock(home, "oumi", "build")
    lock.take(wait=True)
    try:
        if not os.path.isdir(folder):
            with tempfile.TemporaryDirectory(prefix="build-", dir=home) as work:
                _install(f"{work}/venv")
                os.rename(f"{work}/venv", folder)
    finally:
        lock.drop(remove=True)
    return f"{folder}/bin/python"


def _install(folder: str) -> None:
    _must(sys.executable, "-m", "venv", folder)
    pip = (f"{folder}/bin/python", "-m", "pip", "install", "--quiet")
    _must(*pip, wheels.cpu_torch(), *NEEDS)
    _must(*pip, "--no-deps", OUMI)


def _must(*command: str) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_S, stdout=subprocess.DEVNULL)


class Calls:
    """Oumi, imported once for a lab's user; see `programs/oumi_calls.py`."""

    def __init__(self, env: Mapping[str, str], requirements: str) -> None:
        ours = {
            "PYTHONPATH": os.pathsep.join((f"{ROOT}/client", f"{ROOT}/wire")),
            "OUMI_EXTRA_DEPS_FILE": requirements,
            "DO_NOT_TRACK": "1",
            "COLUMNS": "200",
        }
        self._process = subprocess.Popen(
            [python(), str(PROGRAMS / "oumi_calls.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **env, **ours},
        )

    def __call__(self, *argv: str) -> str:
        """What a command line says, when it succeeds; else everything, as the test's failure."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(argv) + "\n")
        self._process.stdin.flush()
        code, said = json.loads(self._process.stdout.readline())
        return Done(code, said, "").ok()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
