"""The bundle that will be mounted: whole, static, small, and the same when it is built again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx_runner import build, bundle, elf

pytestmark = pytest.mark.real


def test_the_bundle_is_what_its_manifest_says() -> None:
    path = bundle.locate()
    manifest = json.loads((path / bundle.MANIFEST).read_bytes())

    bundle.verify(path)
    assert path.name == bundle.digest(path)[:12]
    assert set(manifest["licences"]) == {file.name for file in (path / "licences").iterdir()}
    assert {"dropbear", "openssh", "musl", "compiler"} == set(manifest["versions"])


def test_every_program_of_the_bundle_is_static_and_the_whole_is_small() -> None:
    path = bundle.locate()
    programs = [
        file
        for folder in ("bin", "first", "last", "libexec", "slurm")
        for file in path.glob(f"{folder}/*")
    ]

    assert [] == [file.name for file in programs if not elf.is_static(file)]
    assert sum(file.lstat().st_size for file in path.rglob("*")) < build.SIZE_LIMIT


@pytest.mark.timeout(450)
def test_a_bundle_that_is_built_again_is_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "phalanx_runner.build", "--force", "--out", str(tmp_path)]

    subprocess.run(command, check=True, capture_output=True, timeout=400)

    assert [bundle.locate().name] == [path.parent.name for path in tmp_path.glob("*/bin")]
