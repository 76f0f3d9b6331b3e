"""Images as the engine's load call wants them: layers, a configuration, and a manifest in a tar.

An image made here has the same id on every engine, so a second load can be skipped. The tar is
streamed from the layers' own files and never lies on disk as a whole.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from phalanx_lab.unavailable import Unavailable

BLOCK = 2**20
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Layer:
    """A tar file on disk and the SHA-256 of its content in hex."""

    path: str
    digest: str

    @property
    def size(self) -> int:
        """Bytes."""
        return os.path.getsize(self.path)


@dataclass(frozen=True, slots=True)
class Image:
    """An image of layers, lowest first. `ref` is `name:tag`.

    `settings` are more of its configuration, in the engine's words: `Entrypoint`, `User`, ...
    """

    ref: str
    layers: Sequence[Layer]
    command: Sequence[str] = ("/bin/sh",)
    env: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> bytes:
        """The engine's description of the image; its hash is the image's id."""
        env = {"PATH": PATH, **self.env}
        told = {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "2000-01-01T00:00:00Z",
            "config": {
                "Env": [f"{key}={value}" for key, value in env.items()],
                "Cmd": list(self.command),
                **self.settings,
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{layer.digest}" for layer in self.layers],
            },
            "history": [{"created": "2000-01-01T00:00:00Z"} for _ in self.layers],
        }
        return json.dumps(told, sort_keys=True).encode()

    @property
    def id(self) -> str:
        """`sha256:...`, as engines show it."""
        return f"sha256:{hashlib.sha256(self.config).hexdigest()}"

    @property
    def names(self) -> Mapping[str, str]:
        """References and the ids of what they name."""
        return {self.ref: self.id}

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)

    def stream(self) -> Iterator[bytes]:
        """The archive, in pieces."""
        config_name = f"{self.id.removeprefix('sha256:')}.json"
        manifest = [
            {
                "Config": config_name,
                "RepoTags": [self.ref],
                "Layers": [f"{layer.digest}.tar" for layer in self.layers],
            }
        ]
        for name, content in (
            (config_name, self.config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            yield _header(name, len(content))
            yield content + bytes(-len(content) % 512)
        for layer in self.layers:
            yield _header(f"{layer.digest}.tar", layer.size)
            yield from file_pieces(layer.path)
            yield bytes(-layer.size % 512)
        yield bytes(1024)


@dataclass(frozen=True, slots=True)
class Saved:
    """An archive that an engine's save call made."""

    path: str
    names: Mapping[str, str]  # reference: id

    @property
    def ref(self) -> str:
        """The first image's reference."""
        return next(iter(self.names), "")

    @property
    def size(self) -> int:
        """Bytes."""
        return os.path.getsize(self.path)

    def stream(self) -> Iterator[bytes]:
        """The archive, in pieces."""
        return file_pieces(self.path)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def file_pieces(path: str) -> Iterator[bytes]:
    """A file's content, a mebibyte at a time."""
    with open(path, "rb") as file:
        while piece := file.read(BLOCK):
            yield piece


def layer_of(path: str) -> Layer:
    """A tar file as a layer; its digest is kept beside it, since hashing a gigabyte takes time."""
    note = f"{path}.sha256"
    if os.path.exists(note) and os.path.getmtime(note) >= os.path.getmtime(path):
        with open(note, encoding="ascii") as file:
            return Layer(path, file.read().strip())
    digest = hashlib.sha256()
    for piece in file_pieces(path):
        digest.update(piece)
    with open(note, "w", encoding="ascii") as file:
        file.write(digest.hexdigest())
    return Layer(path, digest.hexdigest())


def from_file(path: str, name: str, workspace: str) -> Image | Saved:
    """An image from a saved archive, or from the tar of a root file system.

    `name` is what to call a bare root file system; a compressed one is unpacked into the
    workspace, because an image's id is made of what is inside.
    """
    try:
        with tarfile.open(path) as archive:
            members = {member.name for member in archive}
            if "manifest.json" in members:
                return _saved(path, archive)
    except (OSError, tarfile.TarError) as broken:
        raise Unavailable(path, f"is no tar archive ({broken})", "See docker save.") from broken
    if not members:
        raise Unavailable(path, "is an empty archive", "See docker export.")
    plain = f"{workspace}/{hashlib.sha256(path.encode()).hexdigest()[:16]}.tar"
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        with gzip.open(path, "rb") as source, open(plain, "wb") as target:
            shutil.copyfileobj(source, target, BLOCK)
    else:
        shutil.copyfile(path, plain)
    return Image(name if ":" in name else f"{name}:latest", (layer_of(plain),))


def _saved(path: str, archive: tarfile.TarFile) -> Saved:
    file = archive.extractfile("manifest.json")
    if file is None:
        raise Unavailable(path, "has a manifest that is no file", "See docker save.")
    names: dict[str, str] = {}
    for entry in json.load(file):
        digest = os.path.basename(entry["Config"]).removesuffix(".json")
        names |= dict.fromkeys(entry.get("RepoTags") or (), f"sha256:{digest}")
    if not names:
        raise Unavailable(path, "names no image", "Save it by name: docker save NAME.")
    return Saved(path, names)
