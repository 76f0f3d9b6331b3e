from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from phalanx_agent.core.recipe import Account
from phalanx_agent.core.refused import Refused
from phalanx_agent.host.uploads import Uploads
from phalanx_wire import seal

ACCOUNT = Account(1000, 1001)
SECRET = bytes([7]) * 32
OTHER = bytes([8]) * 32


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
    uploads = Uploads(tmp_path / "uploads", manager.fetch, SECRET)

    await uploads.fetch(digest_of(content))
    await uploads.fetch(digest_of(content))

    assert 1 == manager.asked


async def test_an_archive_lands_in_the_workspace_as_the_containers_user(tmp_path: Path) -> None:
    content = archive(program=b"print(1)")
    uploads = Uploads(tmp_path / "uploads", Manager(content).fetch, SECRET)
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
    uploads = Uploads(tmp_path / "uploads", Manager(content).fetch, SECRET)
    await uploads.fetch(digest_of(content))

    async with asyncio.timeout(30):
        got = await asyncio.gather(*(read(uploads, digest_of(content)) for _ in range(64)))

    assert 1 == len(set(got))


async def test_a_reader_that_goes_away_leaves_no_writer_behind(tmp_path: Path) -> None:
    content = archive(data=bytes(4 << 20))
    uploads = Uploads(tmp_path / "uploads", Manager(content).fetch, SECRET)
    await uploads.fetch(digest_of(content))

    for _ in range(16):
        chunks = uploads.chunks(digest_of(content), ACCOUNT)
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined] # it is a generator behind its port

    assert len(await read(uploads, digest_of(content))) > 4 << 20


async def test_another_content_than_promised_is_refused_and_not_kept(tmp_path: Path) -> None:
    content = archive(program=b"print(1)")
    uploads = Uploads(tmp_path / "uploads", Manager(content + b"!").fetch, SECRET)

    with pytest.raises(Refused):
        await uploads.fetch(digest_of(content))

    assert [] == list((tmp_path / "uploads").iterdir())


async def test_a_digest_that_is_none_never_becomes_a_path(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", Manager(b"").fetch, SECRET)

    with pytest.raises(Refused):
        await uploads.fetch("sha256:../../etc/passwd")


def sealed(content: bytes, *secrets: bytes) -> bytes:
    keys = [X25519PrivateKey.from_private_bytes(secret) for secret in secrets]
    into = io.BytesIO()
    public = [key.public_key().public_bytes_raw() for key in keys]
    seal.seal(io.BytesIO(content), into, public, os.urandom)
    return into.getvalue()


async def test_a_sealed_archive_is_unpacked_and_stays_sealed_on_the_disk(tmp_path: Path) -> None:
    packed = archive(program=b"the secret recipe", data=bytes(1 << 20))
    content = sealed(packed, OTHER, SECRET)
    uploads = Uploads(tmp_path / "uploads", Manager(content).fetch, SECRET)

    await uploads.fetch(digest_of(content))
    with tarfile.open(fileobj=io.BytesIO(await read(uploads, digest_of(content)))) as tar:
        found = tar.extractfile("workspace/program")
        assert found is not None
        assert b"the secret recipe" == found.read()

    assert [content] == [path.read_bytes() for path in (tmp_path / "uploads").iterdir()]


async def test_an_archive_that_is_sealed_for_others_is_refused(tmp_path: Path) -> None:
    content = sealed(archive(program=b"1"), OTHER)
    uploads = Uploads(tmp_path / "uploads", Manager(content).fetch, SECRET)

    with pytest.raises(Refused) as refused:
        await uploads.fetch(digest_of(content))

    name = digest_of(content)[:19]
    assert f"The upload {name} cannot be opened here: it is not sealed for this host's key." == (
        str(refused.value)
    )
    assert [] == list((tmp_path / "uploads").iterdir())


@pytest.mark.parametrize("at", [-1, -70_000, 130, 100])
async def test_a_sealed_archive_with_a_byte_changed_is_refused_before_any_of_it_is_unpacked(
    tmp_path: Path, at: int
) -> None:
    content = bytearray(sealed(archive(data=bytes(200_000)), SECRET))
    content[at] ^= 1
    uploads = Uploads(tmp_path / "uploads", Manager(bytes(content)).fetch, SECRET)

    with pytest.raises(Refused, match="changed"):
        await uploads.fetch(digest_of(bytes(content)))

    assert [] == list((tmp_path / "uploads").iterdir())


def unsafe() -> bytes:
    """A link out of the archive's folder, and a file behind it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("data")
        link.type, link.linkname = tarfile.SYMTYPE, "sub"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("data/file"))
    return out.getvalue()


@pytest.mark.parametrize("content", [unsafe(), b"no tar at all", b""])
@pytest.mark.parametrize("is_sealed", [True, False])
async def test_what_must_not_be_unpacked_is_refused_whoever_looked_before(
    tmp_path: Path, content: bytes, *, is_sealed: bool
) -> None:
    sent = sealed(content, SECRET) if is_sealed else content
    uploads = Uploads(tmp_path / "uploads", Manager(sent).fetch, SECRET)

    with pytest.raises(Refused, match="must not be unpacked: "):
        await uploads.fetch(digest_of(sent))


async def test_archives_that_nobody_needs_are_forgotten(tmp_path: Path) -> None:
    one, two = archive(a=b"1"), archive(b=b"2")
    folder = tmp_path / "uploads"
    for content in (one, two):
        await Uploads(folder, Manager(content).fetch, SECRET).fetch(digest_of(content))

    Uploads(folder, Manager(b"").fetch, SECRET).forget_all_but([digest_of(one)])

    assert [f"{digest_of(one).removeprefix('sha256:')}.tar"] == [
        path.name for path in folder.iterdir()
    ]
