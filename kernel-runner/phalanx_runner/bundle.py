"""The directory of static programs that every container gets at /opt/phalanx.

A bundle is named by the digest of its contents and is never changed in place: containers that run
have it mounted.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

MANIFEST = "manifest.json"
IN_PACKAGE = Path(__file__).parent / "bundle"


class BundleMissing(Exception):  # noqa: N818 - a state of the installation, as its callers say it
    """There is no usable bundle; the text is a sentence for a person."""


def locate(machine: str | None = None) -> Path:
    """The bundle of PHALANX_BUNDLE, else the current one of this package for a kind of machine.

    machine: as `uname -m` says, by default this one.

    Raises BundleMissing.
    """
    machine = machine or platform.machine()
    chosen = os.environ.get("PHALANX_BUNDLE")
    if chosen:
        return _chosen(Path(chosen).absolute(), machine)
    current = pointer(IN_PACKAGE, machine)
    path = IN_PACKAGE / current.read_text().strip() if current.is_file() else IN_PACKAGE
    if not (path / MANIFEST).is_file():
        there = ", ".join(other.suffix.lstrip(".") for other in pointers(IN_PACKAGE))
        raise BundleMissing(
            f"There is no runner bundle for {machine} in {IN_PACKAGE}"
            f"{f' (only for {there})' if there else ''}: run `make bundle` in a checkout, "
            "`make bundle-arm64` for arm64, and install the wheel that is made there."
        )
    return path


def _chosen(path: Path, machine: str) -> Path:
    if not (path / MANIFEST).is_file():
        raise BundleMissing(f"PHALANX_BUNDLE={path} holds no {MANIFEST}: run `make bundle`.")
    made_for = _manifest(path).get("machine", machine)
    if made_for != machine:
        raise BundleMissing(f"PHALANX_BUNDLE={path} is for {made_for}, and this is {machine}.")
    return path


def pointer(parent: Path, machine: str) -> Path:
    """The file beside the bundles that has the name of the one to use on a kind of machine."""
    return parent / f"current.{machine}"


def pointers(parent: Path) -> list[Path]:
    """Those that there are."""
    return sorted(parent.glob("current.*"))


def install(into: Path) -> Path:
    """Copies the located bundle to into/DIGEST, unless it is there, and verifies it.

    Containers should mount this copy: it stays when the package is upgraded under them.

    Raises BundleMissing, and OSError where the copy can't be written.
    """
    source = locate()
    target = into / digest(source)[:12]
    if not target.exists():
        into.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".copying-", dir=into))
        try:
            shutil.copytree(source, partial, symlinks=True, dirs_exist_ok=True)
            partial.chmod(0o755)
            verify(partial)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    verify(target)
    return target


def digest(path: Path) -> str:
    """The SHA-256, in hex, of the contents of a bundle: its identity.

    Raises BundleMissing where the manifest can't be read.
    """
    if "digest" not in (manifest := _manifest(path)):
        raise BundleMissing(f"{path / MANIFEST} has no digest: run `make bundle`.")
    return str(manifest["digest"])


def _manifest(path: Path) -> dict[str, object]:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise BundleMissing(f"{path / MANIFEST}: {error}: run `make bundle`.") from error
    if not isinstance(manifest, dict):
        raise BundleMissing(f"{path / MANIFEST} is no manifest: run `make bundle`.")
    return manifest


def verify(path: Path) -> None:
    """Compares every file with the manifest. Raises BundleMissing at the first difference."""
    expected = digest(path)
    if expected != digest_of(path):
        raise BundleMissing(f"The files of {path} are not those of its manifest: `make bundle`.")


def digest_of(path: Path) -> str:
    """The digest computed from the files. A link counts as what it leads to: a wheel has none."""
    lines = [f"{mode} {sha256} {name}\n" for name, mode, sha256, _ in contents(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def contents(path: Path) -> Iterator[tuple[str, str, str, int]]:
    """(name, "755" or "644", SHA-256, size) of every file but the manifest, by name."""
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name != MANIFEST:
            facts = file.stat()
            mode = "755" if facts.st_mode & 0o100 else "644"
            with file.open("rb") as data:  # piece by piece: an agent keeps what it once took
                yield name, mode, hashlib.file_digest(data, "sha256").hexdigest(), facts.st_size
