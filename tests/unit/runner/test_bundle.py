from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from phalanx_runner import build, bundle
from phalanx_runner.bundle import BundleMissing
from phalanx_runner.sources import Archive, BuildFailed


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A bundle of one program and one link to it."""
    path = tmp_path / "made"
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "runner").write_bytes(b"program")
    (path / "bin" / "runner").chmod(0o755)
    (path / "bin" / "init").symlink_to("runner")
    manifest = {"digest": bundle.digest_of(path)}
    (path / bundle.MANIFEST).write_text(json.dumps(manifest))
    return path


def test_a_bundle_that_is_named_is_used(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHALANX_BUNDLE", str(made))

    assert made == bundle.locate()


def test_a_named_bundle_that_is_none_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHALANX_BUNDLE", str(tmp_path))

    with pytest.raises(BundleMissing, match="make bundle"):
        bundle.locate()


def test_the_current_bundle_of_the_package_is_used(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / bundle.CURRENT).write_text("made\n")
    monkeypatch.delenv("PHALANX_BUNDLE", raising=False)
    monkeypatch.setattr(bundle, "IN_PACKAGE", tmp_path)

    assert made == bundle.locate()


def test_a_package_without_a_bundle_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PHALANX_BUNDLE", raising=False)
    monkeypatch.setattr(bundle, "IN_PACKAGE", tmp_path)

    with pytest.raises(BundleMissing, match="make bundle"):
        bundle.locate()


def test_an_installed_copy_is_whole_and_made_once(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHALANX_BUNDLE", str(made))

    first = bundle.install(tmp_path / "state")
    shutil.rmtree(made / "bin")
    second = bundle.install(tmp_path / "state")

    assert first == second
    assert [first] == list((tmp_path / "state").iterdir())
    assert b"program" == (first / "bin" / "init").read_bytes()


def test_a_broken_bundle_is_not_installed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHALANX_BUNDLE", str(made))
    (made / "bin" / "runner").write_bytes(b"Program")

    with pytest.raises(BundleMissing):
        bundle.install(tmp_path / "state")

    assert [] == list((tmp_path / "state").iterdir())


def test_old_bundles_are_forgotten_and_recent_ones_kept(tmp_path: Path) -> None:
    for name in ("ancient", "recent", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / bundle.MANIFEST).write_text("{}")
    os.utime(tmp_path / "ancient" / bundle.MANIFEST, (1, 1))

    build._make_current(tmp_path / "new")

    assert {"recent", "new"} == {path.parent.name for path in tmp_path.glob("*/manifest.json")}
    assert "new\n" == (tmp_path / bundle.CURRENT).read_text()


def test_an_untouched_bundle_is_verified(made: Path) -> None:
    bundle.verify(made)


@pytest.mark.parametrize("harm", ["contents", "mode", "stranger"])
def test_a_changed_bundle_is_refused(made: Path, harm: str) -> None:
    program = made / "bin" / "runner"
    match harm:
        case "contents":
            program.write_bytes(b"Program")
        case "mode":
            program.chmod(0o644)
        case _:
            (made / "bin" / "more").write_bytes(b"")

    with pytest.raises(BundleMissing):
        bundle.verify(made)


def test_a_link_counts_as_what_it_leads_to(made: Path) -> None:
    before = bundle.digest_of(made)
    (made / "bin" / "init").unlink()
    (made / "bin" / "init").write_bytes(b"program")
    (made / "bin" / "init").chmod(0o755)

    assert before == bundle.digest_of(made)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_manifest_that_is_none_says_what_to_do(made: Path, text: str) -> None:
    (made / bundle.MANIFEST).write_text(text)

    with pytest.raises(BundleMissing, match="make bundle"):
        bundle.digest(made)


def test_the_core_asks_nothing_of_an_image(programs: Path) -> None:
    assert build.is_static(programs / "bin" / "phalanx-runner")


def test_a_program_of_this_machine_is_not_static() -> None:
    assert not build.is_static(Path("/bin/sh").resolve())


def test_missing_tools_are_named_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert 1 == build.main(["--out", str(tmp_path)])
    assert "musl-gcc: apt-get install musl-tools" in capsys.readouterr().err


def test_a_source_that_was_fetched_once_is_not_asked_for_again(tmp_path: Path) -> None:
    for version in ("1%3a9.2p1-2", "1%3a9.10p1-1"):
        (tmp_path / "openssh" / version).mkdir(parents=True)
        (tmp_path / "openssh" / version / "openssh.dsc").touch()

    source = Archive(tmp_path).fetch("openssh", refresh=False)

    assert "1:9.10p1-1" == source.version


def test_a_source_that_cannot_be_fetched_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("apt-get", "apt-cache"):
        (tmp_path / tool).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    with pytest.raises(BuildFailed, match=f"{tmp_path}/dropbear/VERSION"):
        Archive(tmp_path).fetch("dropbear", refresh=False)
