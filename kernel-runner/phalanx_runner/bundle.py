"""The directory of static programs that every container gets at /opt/phalanx.

A bundle is named by the digest of its contents and is never changed in place: containers that run
have it mounted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

MANIFEST = "manifest.json"
IN_PACKAGE = Path(__file__).parent / "bundle"


class BundleMissing(Exception):  # noqa: N818 - a state of the installation, as its callers say it
    """There is no usable bundle; the text is a sentence for a person."""


def locate() -> Path:
    """The bundle of PHALANX_BUNDLE, else the newest one inside this package.

    Raises BundleMissing.
    """
    chosen = os.environ.get("PHALANX_BUNDLE")
    if chosen:
        path = Path(chosen)
        if not (path / MANIFEST).is_file():
            raise BundleMissing(f"PHALANX_BUNDLE={chosen} holds no {MANIFEST}: run `make bundle`.")
        return path.absolute()
    manifests = sorted(IN_PACKAGE.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime_ns)
    if not manifests:
        raise BundleMissing(f"There is no runner bundle in {IN_PACKAGE}: run `make bundle`.")
    return manifests[-1].parent


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
