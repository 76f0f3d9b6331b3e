"""A user's shell on a machine that shares a folder with all hosts, with SLURM's programs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from phalanx_lab import recipes
from tests.real.ground import BASE, Done, Ground, call


@dataclass(frozen=True)
class Login:
    """The shell.

    Attributes:
        folder: where it is; all hosts have it.
    """

    ground: Ground
    folder: Path
    env: dict[str, str]

    @classmethod
    def at(cls, ground: Ground, home: Path, site: str) -> Login:
        """Install the programs below `home`, in front of a fresh shared folder; jobs find the
        Python packages of `site`.
        """
        ground.phalanx("slurm", "install", "--prefix", str(home), "--image", BASE).ok()
        share = Path(ground.lab.plan.state) / "share"
        folder = share / home.name
        folder.mkdir()
        env = {
            **ground.env,
            "PATH": f"{home}/bin:{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            "PHALANX_SLURM_SHARED": f"{share},{recipes.cache()}/images:ro",
            "PYTHONPATH": site,
        }
        return cls(ground, folder, env)

    def run(self, *command: str, timeout: float = 90, stdin: str | None = None) -> Done:
        """Run a command in the shared folder."""
        words = ("env", "-C", str(self.folder), *command)
        return call(*words, timeout=timeout, stdin=stdin, env=self.env)

    def script(self, text: str) -> str:
        """Write a batch script."""
        (self.folder / "job.sh").write_text(text)
        return "job.sh"

    def state(self, number: str) -> str:
        """A job's state in accounting."""
        return self.run("sacct", "-X", "-n", "-P", "-o", "State", "-j", number).ok().strip()
