from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from phalanx_client import archive, ignore
from phalanx_client.failure import Failure


def names(folder: Path) -> list[str]:
    packed, _ = archive.pack_upload(str(folder))
    with packed, tarfile.open(fileobj=packed) as tar:
        return tar.getnames()


def digest(folder: Path) -> str:
    packed, length = archive.pack_upload(str(folder))
    with packed:
        data = packed.read()
    assert length == len(data)
    return hashlib.sha256(data).hexdigest()


def test_the_same_contents_give_the_same_archive(tmp_path: Path) -> None:
    for folder, order in (("a", ("x", "y")), ("b", ("y", "x"))):
        (tmp_path / folder / "sub").mkdir(parents=True)
        for name in order:
            (tmp_path / folder / "sub" / name).write_text(name)
            os.utime(tmp_path / folder / "sub" / name, (ord(name) * 10, ord(folder)))

    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_modes_are_only_whether_it_can_be_executed(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("")
    (tmp_path / "run.sh").chmod(0o700)
    (tmp_path / "text").write_text("")
    (tmp_path / "text").chmod(0o600)

    packed, _ = archive.pack_upload(str(tmp_path))
    with packed, tarfile.open(fileobj=packed) as tar:
        assert [0o755, 0o644] == [member.mode for member in tar]


def test_what_nobody_wants_is_left_out_by_default(tmp_path: Path) -> None:
    for path in (".git/config", "a/__pycache__/x.pyc", ".venv/bin/python", "a/b.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")

    assert ["a", "a/b.py"] == names(tmp_path)


def test_an_ignore_file_takes_the_place_of_the_default(tmp_path: Path) -> None:
    for path in ("data/big.bin", "data/keep.bin", "src/data/x", "src/a.log", "__pycache__/y"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / ".phalanxignore").write_text("# note\n/data/*\n!keep.bin\n*.log\n")

    assert [
        ".phalanxignore", "__pycache__", "__pycache__/y", "data", "data/keep.bin",
        "src", "src/data", "src/data/x",
    ] == names(tmp_path)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "path", "folder", "expected"),
    [
        ("*.pyc", "a/b.pyc", False, True),
        ("/a", "x/a", False, False),
        ("a/", "a", False, False),
        ("a/", "x/a", True, True),
        ("a/**/z", "a/b/c/z", False, True),
        ("a/**/z", "a/z", False, True),
        ("a/*", "a/b/c", False, False),
        ("**/x", "x", False, True),
        ("fo?", "foo", False, True),
        ("[!a]b", "cb", False, True),
        ("[!a]b", "ab", False, False),
        ("a.c", "abc", False, False),
    ],
)
def test_a_rule_matches_as_in_gitignore(
    rule: str, path: str, *, folder: bool, expected: bool
) -> None:
    assert expected == ignore.ignored(path, folder=folder, by=ignore.rules([rule]))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "../outside"])
def test_a_link_out_of_the_tree_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(target)

    with pytest.raises(Failure, match=f"links to {target}, outside of what is sent"):
        archive.pack_upload(str(tmp_path / "tree"))


def test_a_link_inside_of_the_tree_travels_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "a" / "link").symlink_to("../file")

    packed, _ = archive.pack_upload(str(tmp_path))
    with packed, tarfile.open(fileobj=packed) as tar:
        assert "../file" == tar.getmember("a/link").linkname


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(Failure, match="neither file, folder nor link"):
        archive.pack_upload(str(tmp_path))


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is no folder") as caught:
        archive.pack_upload(str(tmp_path / "none"))

    assert 66 == caught.value.exit_code


def made(*members: tuple[str, bytes | None], link: tuple[str, str] | None = None) -> io.BytesIO:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
                info.mode = 0o755
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        if link is not None:
            info = tarfile.TarInfo(link[0])
            info.type = tarfile.SYMTYPE
            info.linkname = link[1]
            tar.addfile(info)
    target.seek(0)
    return target


def test_a_copied_folder_goes_into_a_folder_that_exists(tmp_path: Path) -> None:
    count = archive.unpack_copy(made(("out", None), ("out/a", b"1")), str(tmp_path))

    assert 2 == count
    assert "1" == (tmp_path / "out" / "a").read_text()


def test_a_copied_folder_gets_the_name_that_does_not_exist_yet(tmp_path: Path) -> None:
    archive.unpack_copy(made(("out", None), ("out/a", b"1")), str(tmp_path / "new"))

    assert "1" == (tmp_path / "new" / "a").read_text()


def test_a_copied_file_gets_the_targets_name(tmp_path: Path) -> None:
    archive.unpack_copy(made(("x.txt", b"1")), str(tmp_path / "y.txt"))

    assert "1" == (tmp_path / "y.txt").read_text()


def test_an_archive_that_would_leave_the_target_is_refused(tmp_path: Path) -> None:
    evil = made(("out", None), ("out/../../evil", b"x"))
    inner = tmp_path / "inner"
    inner.mkdir()

    with pytest.raises(Failure, match="was refused"):
        archive.unpack_copy(evil, str(inner))

    assert not (tmp_path / "evil").exists()


def entry(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> Any:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(content), 0o755
    return info, content


def told(*entries: Any) -> io.BytesIO:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    target.seek(0)
    return target


SYMBOLIC, HARD, FOLDER = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
TOP = entry("x", kind=FOLDER)
LIES = {
    "behind a link": (entry("x", kind=SYMBOLIC, link=".ssh"), entry("x/keys", b"evil")),
    "behind a link in it": (
        TOP, entry("x/a", kind=SYMBOLIC, link="../.ssh"), entry("x/a/keys", b"evil"),
    ),
    "through a link of the same name": (
        TOP, entry("x/a", kind=SYMBOLIC, link="../.ssh/keys"), entry("x/a", b"evil"),
    ),
    "by way of two links": (
        TOP,
        entry("x/b", kind=SYMBOLIC, link="."),
        entry("x/a", kind=SYMBOLIC, link="b/../.ssh"),
        entry("x/a/keys", b"evil"),
    ),
    "through a hard link": (
        TOP, entry("x/a", kind=HARD, link=".ssh/keys"), entry("x/a", b"evil"),
    ),
    "through a hard link to a link": (
        TOP,
        entry("x/a", kind=SYMBOLIC, link="b"),
        entry("x/c", kind=HARD, link="x/a"),
        entry("x/c", b"evil"),
    ),
    "beside it": (TOP, entry(".ssh/keys", b"evil")),
}  # fmt: skip


@pytest.mark.parametrize("target", ["out", "."])
@pytest.mark.parametrize("lie", LIES)
def test_what_a_container_sends_is_written_nowhere_but_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = tmp_path / ".ssh" / "keys"
    keys.parent.mkdir()
    keys.write_text("mine")
    for _again in range(2):
        with contextlib.suppress(Failure):
            archive.unpack_copy(told(*LIES[lie]), target, "x")

    assert "mine" == keys.read_text()
    assert ["keys"] == os.listdir(".ssh")


ODD = {
    "a link to what is not there": entry("x/a", kind=HARD, link="x/b"),
    "a time that no file has": entry("x/a"),
    "a name with NUL": entry("x/a\0b"),
}
ODD["a time that no file has"][0].pax_headers = {"mtime": "1e300"}
ODD["a name with NUL"][0].pax_headers = {"path": "x/a\0b"}


@pytest.mark.parametrize("odd", ODD)
def test_what_no_file_can_be_is_a_sentence(tmp_path: Path, odd: str) -> None:
    with pytest.raises(Failure, match="is damaged"):
        archive.unpack_copy(told(TOP, ODD[odd]), str(tmp_path), "x")


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "mine")

    archive.unpack_copy(made(("out", None), ("out/a", b"new")), str(tmp_path), "out")

    assert ("mine", "new") == ((tmp_path / "mine").read_text(), (tmp_path / "out/a").read_text())


@pytest.mark.parametrize("target", ["new", "folder"])
def test_links_within_what_is_copied_come_with_it_under_any_name(
    tmp_path: Path, target: str
) -> None:
    (tmp_path / "folder").mkdir()
    sent = told(
        TOP,
        entry("x/sub", kind=FOLDER),
        entry("x/sub/a", b"1"),
        entry("x/hard", kind=HARD, link="x/sub/a"),
        entry("x/sub/b", kind=SYMBOLIC, link="../hard"),
    )
    count = archive.unpack_copy(sent, str(tmp_path / target), "x")
    out = tmp_path / ("new" if target == "new" else "folder/x")

    assert 5 == count
    assert ("1", "1") == ((out / "hard").read_text(), (out / "sub" / "b").read_text())


def test_of_a_root_its_contents_are_copied(tmp_path: Path) -> None:
    for target in (tmp_path, tmp_path / "new"):
        archive.unpack_copy(made(("/", None), ("bin", None), ("bin/a", b"1")), str(target), "")

    assert ("1", "1") == ((tmp_path / "bin/a").read_text(), (tmp_path / "new/bin/a").read_text())


def test_an_archive_with_an_absolute_name_stays_inside(tmp_path: Path) -> None:
    archive.unpack_copy(made(("/abs/x", b"1")), str(tmp_path))

    assert "1" == (tmp_path / "abs" / "x").read_text()


def test_an_archive_that_breaks_off_is_a_sentence(tmp_path: Path) -> None:
    whole = made(("a", b"x" * 5000)).getvalue()

    with pytest.raises(Failure, match="ended early"):
        archive.unpack_copy(io.BytesIO(whole[:2000]), str(tmp_path))


def test_the_first_block_tells_whether_it_is_a_folder() -> None:
    assert archive.first_is_folder(made(("d", None)).read()) is True
    assert archive.first_is_folder(made(("f", b"")).read()) is False
    assert archive.first_is_folder(b"") is None


@pytest.mark.parametrize("to", ["/usr/bin/python3", "../../..", "../other", "a/../../b"])
def test_a_link_that_leads_elsewhere_is_left_out_and_the_rest_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    (tmp_path / "out").mkdir()
    sent = told(entry("out/\x1b[2Jl", kind=SYMBOLIC, link=to), entry("out/a", b"1"))

    count = archive.unpack_copy(sent, str(tmp_path))

    assert (1, b"1") == (count, (tmp_path / "out/a").read_bytes())
    assert f"left out: out/\\x1b[2Jl is a link to {to}\n" == capsys.readouterr().err
