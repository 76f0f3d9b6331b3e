from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

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


@pytest.mark.parametrize(
    "evil",
    [
        made(("out", None), ("out/../../evil", b"x")),
        made(("out", None), link=("out/link", "../../..")),
    ],
)
def test_an_archive_that_would_leave_the_target_is_refused(
    tmp_path: Path, evil: io.BytesIO
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()

    with pytest.raises(Failure, match="was refused"):
        archive.unpack_copy(evil, str(inner))

    assert not (tmp_path / "evil").exists()


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


def test_a_link_to_an_absolute_path_is_left_out_and_the_rest_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("out/python")
        link.type, link.linkname = tarfile.SYMTYPE, "/usr/bin/python3"
        tar.addfile(link)
        member = tarfile.TarInfo("out/a")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"1"))
    buffer.seek(0)
    (tmp_path / "out").mkdir()

    count = archive.unpack_copy(buffer, str(tmp_path))

    assert (1, b"1") == (count, (tmp_path / "out/a").read_bytes())
    assert "left out: out/python is a link to /usr/bin/python3" in capsys.readouterr().err
