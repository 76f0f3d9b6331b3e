from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from phalanx_lab import archive
from phalanx_lab.archive import Image, Saved
from phalanx_lab.unavailable import Unavailable


def rootfs(folder: Path, text: bytes = b"hello") -> Path:
    path = folder / "rootfs.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("etc/motd")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return path


def image(folder: Path, text: bytes = b"hello") -> Image:
    return Image("phalanx/x:latest", (archive.layer_of(str(rootfs(folder, text))),))


def test_the_stream_is_a_tar_whose_manifest_names_its_config_and_layers(tmp_path: Path) -> None:
    made = image(tmp_path)

    with tarfile.open(fileobj=io.BytesIO(b"".join(made.stream()))) as tar:
        content = {one.name: tar.extractfile(one) for one in tar}
        manifest = content["manifest.json"]
        assert manifest is not None
        (entry,) = json.load(manifest)
        config, layer = content[entry["Config"]], content[entry["Layers"][0]]
        assert config is not None
        assert layer is not None
        assert entry["RepoTags"] == ["phalanx/x:latest"]
        assert f"sha256:{hashlib.sha256(config.read()).hexdigest()}" == made.id
        assert layer.read() == (tmp_path / "rootfs.tar").read_bytes()


def test_an_image_made_twice_has_one_id(tmp_path: Path) -> None:
    assert image(tmp_path).id == image(tmp_path).id


def test_a_layer_of_other_content_gives_another_id(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    assert image(tmp_path / "one", b"1").id != image(tmp_path / "two", b"2").id


def test_a_root_file_system_becomes_an_image_of_one_layer_packed_or_not(tmp_path: Path) -> None:
    plain = rootfs(tmp_path)
    packed = tmp_path / "rootfs.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    one = archive.from_file(str(plain), "mine", str(tmp_path))
    two = archive.from_file(str(packed), "mine", str(tmp_path))

    assert one.names == two.names
    assert one.ref == "mine:latest"


def test_a_saved_archive_keeps_its_names_and_ids(tmp_path: Path) -> None:
    made = image(tmp_path)
    saved = tmp_path / "saved.tar"
    saved.write_bytes(b"".join(made.stream()))

    found = archive.from_file(str(saved), "ignored", str(tmp_path))

    assert isinstance(found, Saved)
    assert found.names == made.names


def test_what_is_no_archive_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_text("no")

    with pytest.raises(Unavailable, match=r"x\.tar: is no tar archive"):
        archive.from_file(str(path), "x", str(tmp_path))
