from __future__ import annotations

import platform
from pathlib import Path

import pytest

from phalanx_runner import recipes, toolchains
from phalanx_runner.build import SRC
from tests.unit.runner.box import Boxes


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the runner's own program, compiled from the sources as they are."""
    bundle = tmp_path_factory.mktemp("bundle")
    tools = toolchains.choose(platform.machine())
    shop = recipes.Workshop(SRC, tmp_path_factory.mktemp("scratch"), tools, lambda _: None)
    (bundle / "bin").mkdir()
    core = recipes.build_core(shop)
    for name in ("phalanx-init", "phalanx-shell", "phalanx-solo", "ssh"):
        (bundle / "bin" / name).symlink_to("phalanx-runner")
    core.rename(bundle / "bin" / "phalanx-runner")
    (bundle / "libexec").mkdir()
    for name in ("ask", "task"):
        recipes.build_small(shop, name).rename(bundle / "libexec" / f"phalanx-{name}")
    for name in ("phalanx", "scontrol"):
        (bundle / "bin" / name).symlink_to("../libexec/phalanx-ask")
    return bundle


@pytest.fixture
def boxes(programs: Path, tmp_path: Path) -> Boxes:
    return Boxes(programs, tmp_path / "m")
