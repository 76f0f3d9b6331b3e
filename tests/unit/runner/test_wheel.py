"""What a host gets that installs our wheel: it has no checkout and no compiler."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx_runner import bundle

ROOT = Path(__file__).parents[3]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
AS_THE_AGENT_DOES = """
import json, sys
from pathlib import Path
from phalanx_runner import bundle
located = bundle.locate()
bundle.verify(located)
print(json.dumps([str(located), str(bundle.install(Path(sys.argv[1])))]))
"""


def build(source: Path, to: Path) -> subprocess.CompletedProcess[str]:
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(to)]
    return subprocess.run(
        [*command, str(source)], capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with our wheel in it."""
    folder = tmp_path_factory.mktemp("host")
    done = build(ROOT, folder / "dist")
    assert 0 == done.returncode, done.stderr
    (wheel,) = (folder / "dist").iterdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    interpreter = folder / "env" / "bin" / "python"
    install = ["--python", str(interpreter), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*PIP, *install], check=True, timeout=100)
    return interpreter


def test_an_agent_from_the_wheel_finds_the_bundle_and_its_programs_run(
    python: Path, tmp_path: Path
) -> None:
    command = [str(python), "-I", "-c", AS_THE_AGENT_DOES, str(tmp_path / "state")]
    done = subprocess.run(
        command, env={"PATH": str(tmp_path)}, cwd=tmp_path, capture_output=True, check=True
    )
    located, installed = (Path(path) for path in json.loads(done.stdout))
    init = subprocess.run([installed / "bin" / "phalanx-init"], capture_output=True, check=False)
    client = subprocess.run(
        [installed / "libexec" / "ssh", "-V"], capture_output=True, text=True, check=True
    )

    assert located.is_relative_to(python.parents[1])
    assert bundle.digest(bundle.locate()) == bundle.digest(installed)
    assert (125, b"not PID 1") == (init.returncode, init.stderr[14:23])
    assert client.stderr.startswith("OpenSSH")


def test_the_wheel_has_only_the_bundles_to_use(python: Path) -> None:
    (inside,) = python.parents[1].glob("lib/*/site-packages/phalanx_runner/bundle")
    there = {path.name for path in inside.iterdir()}
    pointers = {path.name for path in bundle.pointers(inside)}

    assert f"current.{platform.machine()}" in pointers
    assert pointers | {(inside / name).read_text().strip() for name in pointers} == there


@pytest.mark.parametrize("state", ["none", "broken"])
def test_without_a_whole_bundle_there_is_no_wheel_and_it_says_what_to_do(
    tmp_path: Path, state: str
) -> None:
    source = tmp_path / "checkout"
    shutil.copytree(ROOT / "kernel-runner", source / "kernel-runner", symlinks=True)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    inside = source / "kernel-runner" / "phalanx_runner" / "bundle"
    if state == "none":
        shutil.rmtree(inside)
    else:
        for manifest in inside.glob(f"*/{bundle.MANIFEST}"):
            (manifest.parent / "bin" / "phalanx-runner").write_bytes(b"")

    done = build(source, tmp_path / "dist")

    assert 0 != done.returncode
    assert "make bundle" in done.stderr
    assert not list(tmp_path.glob("dist/*"))
