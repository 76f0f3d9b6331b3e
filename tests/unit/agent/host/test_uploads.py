from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phalanx_agent.core.recipe import Account
from phalanx_agent.core.refused import Refused
from phalanx_agent.host.uploads import Uploads

ACCOUNT = Account(1000, 1001)


def archive(**files: bytes) -> bytes:
    """A tar archive with plain files, as a user's client makes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.uname = len(content), 7, "somebody"
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.LNKTYPE, next(iter(files))
        tar.addfile(link)
    return out.getvalue()


class Manager:
    """Gives archives, and counts how often it was asked."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked = 0

    async def fetch(self, _digest: str) -> AsyncIterator[bytes]:
        self.asked += 1
        for start in range(0, len(self.content), 4096):
            yield self.content[start : start + 4096]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def read(uploads: Uploads, digest: str) -> bytes:
    return b"".join([chunk async for chunk in uploads.chunks(digest, ACCOUNT)])


async def test_an_archive_is_fetched_once(tmp_path: Path) -> None:
    content = archive(program=b"print(1)")
    manager = Manager(content)
    uploads = Uploads(tmp_path / "uploads", manager.fetch)

    await uploads.fetch(digest_of(content))
    await uploads.fetch(digest_of(content))

    assert 1 == manager.asked


async def test_an_archive_lands_in_the_workspace_as_the_containers_user(tmp_path: Path) -> None:
    content = archive(program=b"print(1)")
    uploads = Uploads(tmp_path / "uploads", Manager(content).fetch)
    await uploads.fetch(digest_of(content))

    with tarfile.open(fileobj=io.BytesIO(await read(uploads, digest_of(content)))) as tar:
        members = tar.getmembers()

    assert [
        ("workspace", ""),
        ("workspace/program", ""),
        ("workspace/link", "workspace/program"),
    ] == [(member.name, member.linkname) for member in members]
    assert {(1000, 1001, "")} == {(member.uid, member.gid, member.uname) for member in members}


async def test_more_readers_than_threads_all_get_their_archive(tmp_path: Path) -> None:
    content = archive(data=bytes(1 << 20))
    uploads = Uploads(tmp_path / "uploads", Manager(content).fetch)
    await uploads.fetch(digest_of(content))

    async with asyncio.timeout(30):
        got = await asyncio.gather(*(read(uploads, digest_of(content)) for _ in range(64)))

    assert 1 == len(set(got))


async def test_a_reader_that_goes_away_leaves_no_writer_behind(tmp_path: Path) -> None:
    content = archive(data=bytes(4 << 20))
    uploads = Uploads(tmp_path / "uploads", Manager(content).fetch)
    await uploads.fetch(digest_of(content))

    for _ in range(16):
        chunks = uploads.chunks(digest_of(content), ACCOUNT)
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined] # it is a generator behind its port

    assert len(await read(uploads, digest_of(content))) > 4 << 20


async def test_another_content_than_promised_is_refused_and_not_kept(tmp_path: Path) -> None:
    content = archive(program=b"print(1)")
    uploads = Uploads(tmp_path / "uploads", Manager(content + b"!").fetch)

    with pytest.raises(Refused):
        await uploads.fetch(digest_of(content))

    assert [] == list((tmp_path / "uploads").iterdir())


async def test_a_digest_that_is_none_never_becomes_a_path(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", Manager(b"").fetch)

    with pytest.raises(Refused):
        await uploads.fetch("sha256:../../etc/passwd")


async def test_archives_that_nobody_needs_are_forgotten(tmp_path: Path) -> None:
    one, two = archive(a=b"1"), archive(b=b"2")
    folder = tmp_path / "uploads"
    for content in (one, two):
        await Uploads(folder, Manager(content).fetch).fetch(digest_of(content))

    Uploads(folder, Manager(b"").fetch).forget_all_but([digest_of(one)])

    assert [f"{digest_of(one).removeprefix('sha256:')}.tar"] == [
        path.name for path in folder.iterdir()
    ]
