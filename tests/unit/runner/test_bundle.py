from __future__ import annotations

import json
import os
import platform
import shutil
from pathlib import Path

import pytest

from phalanx_runner import build, bundle, elf, recipes, toolchains
from phalanx_runner.build import SRC
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
    bundle.pointer(tmp_path, platform.machine()).write_text("made\n")
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


def test_a_bundle_for_another_kind_of_machine_is_not_used_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.pointer(tmp_path, "riscv64").write_text("made\n")
    monkeypatch.delenv("PHALANX_BUNDLE", raising=False)
    monkeypatch.setattr(bundle, "IN_PACKAGE", tmp_path)

    with pytest.raises(BundleMissing, match=f"for {platform.machine()} .*only for riscv64"):
        bundle.locate()


def test_a_bundle_is_found_for_each_kind_of_machine(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.pointer(tmp_path, "riscv64").write_text("made\n")
    monkeypatch.delenv("PHALANX_BUNDLE", raising=False)
    monkeypatch.setattr(bundle, "IN_PACKAGE", tmp_path)

    assert made == bundle.locate("riscv64")


def test_a_named_bundle_for_another_kind_of_machine_is_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made / bundle.MANIFEST).write_text(json.dumps({"digest": "", "machine": "riscv64"}))
    monkeypatch.setenv("PHALANX_BUNDLE", str(made))

    with pytest.raises(BundleMissing, match="for riscv64"):
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

    build._make_current(tmp_path / "new", platform.machine())

    assert {"recent", "new"} == {path.parent.name for path in tmp_path.glob("*/manifest.json")}
    assert "new\n" == bundle.pointer(tmp_path, platform.machine()).read_text()


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
    assert elf.is_static(programs / "bin" / "phalanx-runner")


def test_a_program_of_this_machine_is_not_static() -> None:
    assert not elf.is_static(Path("/bin/sh").resolve())


def test_missing_tools_are_named_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert 1 == build.main(["--out", str(tmp_path)])
    assert "musl-gcc: apt-get install musl-tools" in capsys.readouterr().err


def test_zig_is_asked_for_only_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BuildFailed) as native:
        toolchains.choose(platform.machine())
    with pytest.raises(BuildFailed) as other:
        toolchains.choose("riscv64")

    assert "ziglang" not in str(native.value)
    assert "musl-tools" not in str(other.value)


def test_the_core_is_the_same_wherever_it_is_built(programs: Path, tmp_path: Path) -> None:
    source = shutil.copytree(SRC, tmp_path / "elsewhere" / "src")
    tools = toolchains.choose(platform.machine())
    again = recipes.build_core(recipes.Workshop(source, tmp_path, tools, lambda _: None))

    assert (programs / "bin" / "phalanx-runner").read_bytes() == again.read_bytes()


def test_a_bundle_with_a_dynamic_program_is_not_made(tmp_path: Path) -> None:
    shutil.copy(Path("/bin/sh").resolve(), tmp_path / "sh")

    with pytest.raises(BuildFailed, match="sh is not static"):
        build._check(tmp_path, platform.machine())


def test_a_bundle_with_a_program_of_another_machine_is_not_made(programs: Path) -> None:
    with pytest.raises(BuildFailed, match="is not for riscv64"):
        build._check(programs, "riscv64")


def test_a_source_that_was_fetched_once_is_not_asked_for_again(tmp_path: Path) -> None:
    for version in ("1%3a9.2p1-2", "1%3a9.10p1-1"):
        (tmp_path / "openssh" / version).mkdir(parents=True)
        (tmp_path / "openssh" / version / "openssh.dsc").touch()

    source = Archive(tmp_path).fetch("openssh", refresh=False)

    assert "1:9.10p1-1" == source.version


APT_CACHE = "#!/bin/sh\nprintf 'Version: 1.9-1\\nVersion: 1.10-1\\nVersion: 1.10-1+deb12u3\\n'\n"
APT_GET = """#!/bin/sh
for last; do :; done
case $last in
update) ;;
*=1.9-1) touch dropbear.dsc ;;
*) echo "E: Failed to fetch $last  404  Not Found"; exit 100 ;;
esac
"""


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, **tools: str) -> None:
    """Puts programs of ours before those of this machine."""
    for name, text in tools.items():
        (folder / name.replace("_", "-")).write_text(text)
        (folder / name.replace("_", "-")).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_a_version_that_the_mirror_has_dropped_gives_way_to_the_next_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch, apt_cache=APT_CACHE, apt_get=APT_GET)

    source = Archive(tmp_path / "cache").fetch("dropbear", refresh=False)

    assert "1.9-1" == source.version
    assert [source.directory] == list((tmp_path / "cache" / "dropbear").iterdir())


def test_without_a_network_what_was_fetched_before_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch, apt_get="#!/bin/sh\necho 'E: no route'; exit 100\n")
    (tmp_path / "dropbear" / "1.9-1").mkdir(parents=True)
    (tmp_path / "dropbear" / "1.9-1" / "dropbear.dsc").touch()

    assert "1.9-1" == Archive(tmp_path).fetch("dropbear", refresh=True).version


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ({"apt_get": "#!/bin/sh\necho 'E: no route'; exit 100\n"}, "E: no route"),
        ({"apt_get": "#!/bin/sh\n", "apt_cache": "#!/bin/sh\n"}, "none listed"),
        (
            {"apt_get": APT_GET.replace("1.9-1", "x"), "apt_cache": APT_CACHE},
            "1.10-1: E: Failed to fetch dropbear=1.10-1  404",
        ),
    ],
    ids=["no network", "nothing listed", "nothing left"],
)
def test_a_source_that_cannot_be_fetched_says_why_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: dict[str, str], why: str
) -> None:
    pretend(tmp_path, monkeypatch, **tools)

    with pytest.raises(BuildFailed, match=f"{why}.*{tmp_path}/.*/VERSION/") as failed:
        Archive(tmp_path).fetch("dropbear", refresh=False)

    assert "deb.debian.org" in str(failed.value)
