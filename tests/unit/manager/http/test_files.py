from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import msgspec
import pytest

from phalanx_manager.http import uploads
from phalanx_manager.http.problems import Refused
from phalanx_manager.http.uploads import Uploads
from phalanx_wire import tarball
from phalanx_wire.api import UploadCreated
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.mux import Mux, Stream
from phalanx_wire.stream import STDIN, STDOUT, Data, Eof, ReadCall, UploadCall, WriteCall
from tests.support.manager_api import SPEC, Scene, problem, scene

TAR = {"Content-Type": "application/x-tar"}
ARCHIVE = "/v1/sessions/demo/archive?path=/data"


def tar(*members: tarfile.TarInfo | tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Make an archive of files and special members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for member in members:
            if isinstance(member, tuple):
                name, data = member
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                archive.addfile(member)
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


# ---------------------------------------------------------------- is it safe

GOOD: dict[str, bytes] = {
    "empty": tar(),
    "files": tar(("a.py", b"print()"), ("b/c.py", b"x" * 3000)),
    "with a leading dot": tar(special("./", tarfile.DIRTYPE), ("./a", b"1")),
    "long names": tar(("d/" * 50 + "n" * 150, b"1")),
    "long names, GNU": tar(("d/" * 50 + "n" * 150, b"1"), form=tarfile.GNU_FORMAT),
    "names in UTF-8": tar(("ünï/ço∂é", b"1")),
    "a link inside": tar(("a/b", b"1"), special("a/c", tarfile.SYMTYPE, "../a/b")),
    "a hard link": tar(("a", b"1"), special("b", tarfile.LNKTYPE, "a")),
    "ustar": tar(("a" * 90 + "/" + "b" * 90, b"1"), form=tarfile.USTAR_FORMAT),
}


@pytest.mark.parametrize("kind", GOOD)
def test_an_honest_archive_passes(kind: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(GOOD[kind])) as archive:
        assert len(archive.getmembers()) == tarball.check(io.BytesIO(GOOD[kind]))


def _pax(**headers: str) -> bytes:
    info = tarfile.TarInfo("a")
    info.pax_headers = headers
    return tar(info)


def _header(change: Callable[[bytearray], None]) -> bytes:
    """An archive whose first header was changed; its checksum is right."""
    data = bytearray(tar(("a", b"1")))
    change(data)
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    return bytes(data)


def _set(offset: int, value: bytes) -> bytes:
    def change(data: bytearray) -> None:
        data[offset : offset + len(value)] = value

    return _header(change)


BAD: dict[str, bytes] = {
    "nothing": b"",
    "no archive": b"#!/bin/sh\n" * 100,
    "compressed": b"\x1f\x8b" + bytes(1000),
    "cut off in a header": tar(("a", b"1"))[:300],
    "cut off in a file": tar(("a", b"1" * 5000))[:2048],
    "cut off before its end": tar(("a", b"1"))[:1024],
    "a wrong checksum": tar(("a", b"1")).replace(b"a\0", b"b\0", 1),
    "an absolute name": tar(("/etc/passwd", b"1")),
    "a name that leads out": tar(("../x", b"1")),
    "a name that leads out inside": tar(("a/../../x", b"1")),
    "a name that leads out, long": tar(("a/" * 80 + "../" * 90 + "x", b"1")),
    "a name that leads out, GNU": tar(("a/" * 80 + "../" * 90 + "x", b"1"), form=1),
    "no name": _set(0, bytes(100)),
    "a character device": tar(special("d", tarfile.CHRTYPE)),
    "a block device": tar(special("d", tarfile.BLKTYPE)),
    "a pipe": tar(special("d", tarfile.FIFOTYPE)),
    "a link to an absolute name": tar(special("l", tarfile.SYMTYPE, "/etc")),
    "a link out": tar(special("a/l", tarfile.SYMTYPE, "../../x")),
    "a hard link out": tar(special("a/l", tarfile.LNKTYPE, "../x")),
    "a long link out": tar(special("a/l", tarfile.SYMTYPE, "b/" * 80 + "../" * 90)),
    "a file behind a link": tar(special("l", tarfile.SYMTYPE, "."), ("l/x", b"1")),
    "a sparse file": _set(156, b"S"),
    "a volume header": _set(156, b"V"),
    "too deep": tar(("d/" * 70 + "x", b"1")),
    "a pax size": _pax(size="99"),
    "a pax sparse map": _pax(**{"GNU.sparse.major": "1"}),
    "a size out of range": _set(124, b"\xff" * 12),
    "a size that is no number": _set(124, b"12x45678901 "),
    "a negative size": _set(124, b"-0000000001 "),
    "a link with content": _header(lambda d: d.__setitem__(slice(156, 157), b"2")),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_archive_that_is_unsafe_or_unclear_is_refused(kind: str) -> None:
    with pytest.raises(tarball.UnsafeArchiveError):
        tarball.check(io.BytesIO(BAD[kind]))


def test_an_archive_has_at_most_so_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarball, "MAX_MEMBERS", 5)
    assert 5 == tarball.check(io.BytesIO(tar(*[(str(n), b"") for n in range(5)])))
    with pytest.raises(tarball.UnsafeArchiveError, match="more than 5 members"):
        tarball.check(io.BytesIO(tar(*[(str(n), b"") for n in range(6)])))


def test_a_huge_extended_header_is_not_read() -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"comment": "x" * 100_000}
    with pytest.raises(tarball.UnsafeArchiveError, match="too long"):
        tarball.check(io.BytesIO(tar(info)))


# ---------------------------------------------------------------- uploads


async def put(api: Scene, data: bytes, user: str = "ada") -> aiohttp.ClientResponse:
    return await api.client.put("/v1/uploads", data=io.BytesIO(data), headers=api.as_(user) | TAR)


async def test_an_archive_is_kept_by_its_digest_and_may_be_named(api: Scene) -> None:
    data = tar(("a.py", b"print()"))
    response = await put(api, data)
    assert 201 == response.status
    made = msgspec.json.decode(await response.read(), type=UploadCreated)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert UploadCreated(digest, len(data)) == made
    view = await api.submit(upload=digest)
    assert digest == view.spec.upload
    assert made == msgspec.json.decode(await (await put(api, data)).read(), type=UploadCreated)


async def test_what_was_accepted_by_a_key_is_told_although_its_archive_is_gone(
    api: Scene, tmp_path: Path
) -> None:
    made = msgspec.json.decode(await (await put(api, tar(("a", b"1")))).read(), type=UploadCreated)
    spec, key = SPEC | {"upload": made.digest}, {"Idempotency-Key": "k"}
    first = await api.post("/v1/sessions", spec, **key)
    (tmp_path / "uploads" / made.digest.replace(":", "-")).unlink()  # as at another manager
    again = await api.post("/v1/sessions", spec, **key)
    other = await api.post("/v1/sessions", spec, **{"Idempotency-Key": "k2"})

    assert (201, 200, 422) == (first.status, again.status, other.status)
    assert await first.read() == await again.read()


@pytest.mark.parametrize("kind", ["nothing", "a name that leads out", "a character device"])
async def test_an_unsafe_archive_is_refused_and_leaves_nothing(
    api: Scene, tmp_path: Path, kind: str
) -> None:
    response = await put(api, BAD[kind])
    assert (400, "unsafe_archive") == (response.status, (await problem(response)).code)
    assert [] == [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]


async def test_whoever_sends_slowly_keeps_nobody_else_from_sending(tmp_path: Path) -> None:
    archives = Uploads(tmp_path)
    archives.prepare()

    async def whole() -> AsyncIterator[bytes]:
        yield tar(("a", b"1"))

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    sending = [asyncio.ensure_future(archives.store("mallory", slow())) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Refused, match="4 of your uploads"):
        await archives.store("mallory", whole())
    digest, _size = await archives.store("ada", whole())
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)

    assert archives.has(digest)
    assert archives.has((await archives.store("mallory", whole()))[0])


async def test_a_disk_that_others_fill_meanwhile_is_not_filled_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = Uploads(tmp_path)
    archives.prepare()

    async def filling() -> AsyncIterator[bytes]:
        yield b"a"
        monkeypatch.setattr(uploads, "_ROOM_BYTES", 1 << 62)
        yield b"b"

    with pytest.raises(Refused, match="disk is full"):
        await archives.store("ada", filling())

    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


async def test_an_archive_that_is_too_large_is_refused(api: Scene) -> None:
    api.doors.uploads.max_bytes = 1000
    response = await put(api, tar(("a", bytes(5000))))
    assert (413, "body_too_large") == (response.status, (await problem(response)).code)

    async def chunked() -> AsyncIterator[bytes]:
        yield tar(("a", bytes(5000)))

    headers = api.as_("ada") | TAR
    response = await api.client.put("/v1/uploads", data=chunked(), headers=headers)
    assert 413 == response.status


async def test_an_upload_is_a_tar(api: Scene) -> None:
    headers = api.as_("ada") | {"Content-Type": "application/gzip"}
    response = await api.client.put("/v1/uploads", data=b"x", headers=headers)
    assert "unsupported_media_type" == (await problem(response)).code


async def test_archives_that_no_live_session_names_are_forgotten_after_a_day(
    api: Scene, tmp_path: Path
) -> None:
    named, unnamed, fresh = [tar((name, b"1")) for name in "abc"]
    digests = []
    for data in (named, unnamed, fresh):
        made = msgspec.json.decode(await (await put(api, data)).read(), type=UploadCreated)
        digests.append(made.digest)
    for digest in digests[:2]:
        os.utime(tmp_path / "uploads" / digest.replace(":", "-"), (0, 0))
    await api.submit(upload=digests[0])
    await put(api, fresh)
    assert [True, False, True] == [api.doors.uploads.has(digest) for digest in digests]


async def test_an_agent_gets_the_archive_that_it_asks_for(api: Scene) -> None:
    data = tar(("a", bytes(3_000_000)))
    made = msgspec.json.decode(await (await put(api, data)).read(), type=UploadCreated)
    assert (data, "") == await _fetch(api.doors.uploads, UploadCall(made.digest))
    for digest in ("sha256:" + "0" * 64, "../../etc/passwd", ""):
        assert (b"", "upload_unknown") == await _fetch(api.doors.uploads, UploadCall(digest))
    assert (b"", "unknown_call") == await _fetch(api.doors.uploads, ReadCall("k", "/"))  # type: ignore[arg-type]


async def _fetch(uploads: Uploads, call: UploadCall | ReadCall) -> tuple[bytes, str]:
    opened: list[Stream] = []

    async def up(message: object) -> None:
        manager.receive(message)  # type: ignore[arg-type]

    async def down(message: object) -> None:
        agent.receive(message)  # type: ignore[arg-type]

    manager = Mux(down, 0, lambda _open, stream: opened.append(stream))
    agent = Mux(up, 1, lambda _open, _stream: None)
    stream = await agent.open(call)
    serving = asyncio.ensure_future(uploads.serve(AgentId("gpu-1"), opened[0]))
    data = b"".join([item.data async for item in stream if isinstance(item, Data)])
    await serving
    assert stream.closed is not None
    return data, stream.closed.code


def test_what_an_earlier_process_left_half_made_is_removed(tmp_path: Path) -> None:
    draft = tmp_path / "incoming" / "1-1"
    draft.parent.mkdir()
    draft.write_bytes(b"half")
    Uploads(tmp_path).prepare()
    assert not draft.exists()


# ---------------------------------------------------------------- containers' files


async def shelf(stream: Stream) -> None:
    """A container in which /data can be read and written, and nothing else is there."""
    call = stream.call
    assert isinstance(call, ReadCall | WriteCall)
    if call.path != "/data":
        await stream.close(code="not_found", why=f"there is no {call.path}")
    elif isinstance(call, ReadCall):
        for _piece in range(50):
            await stream.write(STDOUT, bytes(100_000))
        await stream.close()
    else:
        total = 0
        async for item in stream:
            if isinstance(item, Eof):
                break
            assert isinstance(item, Data)
            assert STDIN == item.channel
            total += len(item.data)
        await stream.close(code="" if total == 3_000_000 else "bad", why=str(total))


async def test_a_path_of_a_container_is_read(tmp_path: Path) -> None:
    async with scene(tmp_path, shelf) as api:
        row = await api.running()
        response = await api.get(f"{ARCHIVE}&rank=1")
        assert (200, "application/x-tar") == (response.status, response.content_type)
        assert bytes(5_000_000) == await response.read()
        assert [ReadCall(row.kernels[1].id, "/data")] == api.link.calls


async def test_a_path_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with scene(tmp_path, shelf) as api:
        await api.running()
        response = await api.get("/v1/sessions/demo/archive?path=/nothing")
        found = await problem(response)
        assert (404, "there is no /nothing") == (response.status, found.title)


async def test_of_a_users_many_copies_some_wait_for_others_to_end_and_nobody_else_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_manager.http.auth._COPIES", 2)
    taken = asyncio.Event()

    async def slow(stream: Stream) -> None:
        await stream.write(STDOUT, bytes(1000))
        await taken.wait()
        await stream.close()

    async with scene(tmp_path, slow) as api:
        await api.running()
        await api.running("bob", name="bobs")
        first = await asyncio.gather(api.get(ARCHIVE), api.get(ARCHIVE))
        third = asyncio.ensure_future(api.get(ARCHIVE))
        other = await api.get(ARCHIVE.replace("demo", "bobs"), "bob")
        opened = len(api.link.calls)
        taken.set()

        served = [response.status for response in (*first, other, await third)]
    assert (3, [200] * 4) == (opened, served)


async def test_a_copy_that_waits_for_too_long_is_refused_and_may_be_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx_manager.http.auth._COPIES", 0)
    monkeypatch.setattr("phalanx_manager.http.auth._COPY_WITHIN_S", 0.0)
    async with scene(tmp_path, shelf) as api:
        await api.running()
        response = await api.get(ARCHIVE)
        refused = await problem(response)

    assert (429, "too_many_requests") == (response.status, refused.code)
    assert "1" == response.headers["Retry-After"]


async def test_an_archive_that_breaks_off_looks_so(tmp_path: Path) -> None:
    async def broken(stream: Stream) -> None:
        await stream.write(STDOUT, bytes(1000))
        await stream.close(code="engine_unavailable", why="the engine is gone")

    async with scene(tmp_path, broken) as api:
        await api.running()
        with pytest.raises(aiohttp.ClientError):
            await (await api.get(ARCHIVE)).read()


async def test_an_archive_is_unpacked_in_a_container(tmp_path: Path) -> None:
    async with scene(tmp_path, shelf) as api:
        await api.running()

        async def write(url: str, size: int) -> aiohttp.ClientResponse:
            headers = api.as_("ada") | TAR
            return await api.client.put(url, data=io.BytesIO(bytes(size)), headers=headers)

        assert 204 == (await write(ARCHIVE, 3_000_000)).status
        assert 502 == (await write(ARCHIVE, 1000)).status
        response = await write("/v1/sessions/demo/archive?path=/nothing", 3_000_000)
        assert (404, "not_found") == (response.status, (await problem(response)).code)


async def test_files_need_a_container(api: Scene) -> None:
    await api.submit()
    assert "not_running" == (await problem(await api.get(ARCHIVE))).code
    headers = api.as_("ada") | TAR
    response = await api.client.put(ARCHIVE, data=b"", headers=headers)
    assert "not_running" == (await problem(response)).code


async def test_a_container_that_has_ended_takes_no_files(tmp_path: Path) -> None:
    async with scene(tmp_path, shelf) as api:
        row = await api.running()
        await api.move(row.session.id, KernelState.EXITED, exit_code=0)
        response = await api.client.put(ARCHIVE, data=b"", headers=api.as_("ada") | TAR)
        assert 409 == response.status
        assert "rank 0 (main1) has ended" == (await problem(response)).title


async def test_a_container_that_is_gone_has_no_files(tmp_path: Path) -> None:
    async with scene(tmp_path, shelf) as api:
        row = await api.running()
        await api.move(row.session.id, KernelState.EXITED, exit_code=0)
        await api.move(row.session.id, KernelState.REMOVED)
        found = await problem(await api.get(ARCHIVE))
        assert ("not_running", "rank 0 (main1) has ended") == (found.code, found.title)
        assert [] == api.link.calls
