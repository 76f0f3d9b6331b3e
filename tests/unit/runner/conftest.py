from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from phalanx_runner import recipes, toolchains
from phalanx_runner.build import SRC
from tests.unit.runner.box import Boxes

CORE = ("phalanx-init", "phalanx-shell", "phalanx-solo", "ssh")
# With the C library of this machine: sanitizers are not to be had in a static program.
SANITIZED = [*recipes.STRICT, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the runner's own program, compiled from the sources as they are."""
    bundle = tmp_path_factory.mktemp("bundle")
    tools = toolchains.choose(platform.machine())
    shop = recipes.Workshop(SRC, tmp_path_factory.mktemp("scratch"), tools, lambda _: None)
    (bundle / "bin").mkdir()
    core = recipes.build_core(shop)
    for name in CORE:
        (bundle / "bin" / name).symlink_to("phalanx-runner")
    core.rename(bundle / "bin" / "phalanx-runner")
    (bundle / "libexec").mkdir()
    for name in ("ask", "task"):
        recipes.build_small(shop, name).rename(bundle / "libexec" / f"phalanx-{name}")
    for name in ("phalanx", "scontrol"):
        (bundle / "bin" / name).symlink_to("../libexec/phalanx-ask")
    return bundle


@pytest.fixture(scope="session")
def sanitized_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but each program ends with code 99 and says why at the first access to memory
    that is not its own, or the first thing that C does not define.
    """
    bundle = tmp_path_factory.mktemp("sanitized")
    for folder in ("bin", "libexec"):
        (bundle / folder).mkdir()
    core = [*sorted(SRC.glob("*.c")), *(SRC / "ssh" / name for name in recipes.CORE_OF_SSH)]
    options = Path(__file__).parent / "sanitizers.c"
    for to, sources in (
        ("bin/phalanx-runner", core),
        ("libexec/phalanx-ask", [SRC / "ask" / "ask.c"]),
    ):
        command = ["gcc", *SANITIZED, f"-I{SRC}", "-o", str(bundle / to), *map(str, sources)]
        subprocess.run([*command, str(options)], check=True, timeout=100)
    for name in CORE:
        (bundle / "bin" / name).symlink_to("phalanx-runner")
    for name in ("phalanx", "scontrol"):
        (bundle / "bin" / name).symlink_to("../libexec/phalanx-ask")
    return bundle


@pytest.fixture(params=["programs", "sanitized_programs"], ids=["shipped", "sanitized"])
def boxes(request: pytest.FixtureRequest, tmp_path: Path) -> Boxes:
    return Boxes(request.getfixturevalue(request.param), tmp_path / "m")
