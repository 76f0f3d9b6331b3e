"""The directory of static programs that every container gets at /opt/phalanx.

A bundle is named by the digest of its contents and is never changed in place: containers that run
have it mounted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

MANIFEST = "manifest.json"
CURRENT = "current"  # beside the bundles: the name of the one to use
IN_PACKAGE = Path(__file__).parent / "bundle"


class BundleMissing(Exception):  # noqa: N818 - a state of the installation, as its callers say it
    """There is no usable bundle; the text is a sentence for a person."""


def locate() -> Path:
    """The bundle of PHALANX_BUNDLE, else the current one inside this package.

    Raises BundleMissing.
    """
    chosen = os.environ.get("PHALANX_BUNDLE")
    if chosen:
        path = Path(chosen)
        if not (path / MANIFEST).is_file():
            raise BundleMissing(f"PHALANX_BUNDLE={chosen} holds no {MANIFEST}: run `make bundle`.")
        return path.absolute()
    try:
        path = IN_PACKAGE / (IN_PACKAGE / CURRENT).read_text().strip()
    except OSError:
        path = IN_PACKAGE
    if not (path / MANIFEST).is_file():
        raise BundleMissing(f"There is no runner bundle in {IN_PACKAGE}: run `make bundle`.")
    return path


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
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        return str(manifest["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleMissing(f"{path / MANIFEST}: {error}: run `make bundle`.") from error


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
            data = file.read_bytes()
            mode = "755" if file.stat().st_mode & 0o100 else "644"
            yield name, mode, hashlib.sha256(data).hexdigest(), len(data)
