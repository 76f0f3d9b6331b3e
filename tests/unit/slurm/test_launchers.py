"""`phalanx slurm install`: small files that lead to us, and nobody else's overwritten."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.unit.client.conftest import Cli, cli, manager

__all__ = ["cli", "manager"]


def test_launchers_are_installed_once_more_without_harm_and_taken_away(
    cli: Cli, tmp_path: Path
) -> None:
    first = cli("slurm", "install", "--prefix", str(tmp_path), "--image", "my/image")
    (tmp_path / "bin/mine").write_text("mine")
    second = cli("slurm", "install", "--prefix", str(tmp_path))
    settings = (tmp_path / "etc/phalanx/slurm.toml").read_text()
    version = subprocess.run(
        [tmp_path / "bin/sinfo", "--version"], capture_output=True, text=True, check=True
    )
    gone = cli("slurm", "uninstall", "--prefix", str(tmp_path))

    assert (0, 0, 0) == (first.code, second.code, gone.code)
    assert 'image = "my/image"' in settings
    assert "slurm 23.02.7\n" == version.stdout
    assert ["mine"] == os.listdir(tmp_path / "bin")


def test_a_program_that_is_not_ours_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/squeue").write_text("#!/bin/sh\nreal slurm\n")
    install = cli("slurm", "install", "--prefix", str(tmp_path))
    uninstall = cli("slurm", "uninstall", "--prefix", str(tmp_path))

    assert (65, 0) == (install.code, uninstall.code)
    assert f"{tmp_path}/bin/squeue is there and not ours" in install.err
    assert "#!/bin/sh\nreal slurm\n" == (tmp_path / "bin/squeue").read_text()
    assert ["squeue"] == os.listdir(tmp_path / "bin")
