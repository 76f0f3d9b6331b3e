"""What is left, and told, when a connection or the client itself ends in the midst of something."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import tarfile
import termios
from pathlib import Path

import pytest
from aiohttp import web

from phalanx_client import answers, archive, exchange
from phalanx_client.failure import Failure
from phalanx_wire.api import UploadCreated
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import END, ID, FakeManager, fails, line, session, stream

SESSIONS = "/v1/sessions"
ONE = f"/v1/sessions/{ID}"
CUT = stream(None)
AWAY = fails(503, "unavailable", "the database: the connection was cut")
ENDING = [signal.SIGTERM, signal.SIGHUP]
RAW = """
import os, signal, sys
from phalanx_client import terminal
with terminal.raw():
    os.kill(os.getpid(), int(sys.argv[1]))
    signal.pause()
"""
COPY = """
import io, os, signal, sys
from phalanx_client import archive

class Cut(io.RawIOBase):
    def __init__(self, data):
        self.data = io.BytesIO(data)
    def read(self, size=-1):
        piece = self.data.read(size)
        if not piece:
            os.kill(os.getpid(), int(sys.argv[2]))
            signal.pause()
        return piece

archive.unpack_copy(Cut(sys.stdin.buffer.read()), sys.argv[1])
"""


async def gateway(_request: web.Request) -> web.Response:
    """Answer as a proxy does whose manager is away."""
    return web.Response(status=502, text="<html>bad gateway</html>")


def half() -> bytes:
    """The first half of an archive of the folder `d` with the file `a`."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        folder, file = tarfile.TarInfo("d"), tarfile.TarInfo("d/a")
        folder.type, folder.mode, file.size = tarfile.DIRTYPE, 0o755, 50_000
        tar.addfile(folder)
        tar.addfile(file, io.BytesIO(b"x" * file.size))
    return target.getvalue()[:30_000]


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder, with what is in them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("lost", [CUT, gateway, AWAY], ids=["cut", "gateway", "database"])
def test_a_submission_that_was_not_answered_is_repeated_by_its_key(
    cli: Cli, manager: FakeManager, lost: object
) -> None:
    manager.on("POST", SESSIONS, lost, session())

    outcome = cli("run", "--detach", "-i", "x", "true")

    assert (0, "demo\n") == (outcome.code, outcome.out)
    first, second = manager.asked("POST", SESSIONS)
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert first.body == second.body


def test_an_upload_that_is_cut_off_is_sent_again_from_its_beginning(
    cli: Cli, manager: FakeManager, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("print()" * 1000)
    manager.on("PUT", "/v1/uploads", CUT, UploadCreated("sha256:" + 64 * "0", 10240))
    manager.on("POST", SESSIONS, session())

    assert 0 == cli("run", "--detach", "--no-seal", "--upload", str(tmp_path), "-i", "x", "id").code

    first, second = manager.asked("PUT", "/v1/uploads")
    assert first.body == second.body
    assert len(first.body) > 7000


@pytest.mark.parametrize("lost", [CUT, AWAY], ids=["cut", "database"])
def test_a_submission_that_is_never_answered_may_be_there_and_that_is_said(
    cli: Cli, manager: FakeManager, monkeypatch: pytest.MonkeyPatch, lost: object
) -> None:
    monkeypatch.setattr(exchange, "HEARD_S", 0.0)
    manager.on("POST", SESSIONS, lost)

    outcome = cli("run", "--detach", "-i", "x", "true")

    assert 69 == outcome.code
    assert "It may have been submitted: look with `phalanx ps`" in outcome.err


def test_a_submission_that_nobody_heard_fails_at_once(cli: Cli) -> None:
    outcome = cli("run", "--url", "http://127.0.0.1:9", "--detach", "-i", "x", "true")

    assert 69 == outcome.code
    assert "can't be reached" in outcome.err
    assert "submitted" not in outcome.err


@pytest.mark.parametrize("away", [gateway, AWAY], ids=["behind a proxy", "without its database"])
def test_whoever_follows_waits_for_a_manager_that_is_away(
    cli: Cli, manager: FakeManager, away: object
) -> None:
    ended = session("succeeded", exit_code=0)
    manager.on("POST", SESSIONS, session("pending"))
    manager.on("GET", f"{ONE}/wait", session("running"), away, ended)
    cut = stream(line(0, "one", "p1"), None)
    manager.on("GET", f"{ONE}/logs", cut, away, stream(line(0, "two", "p2"), END))

    outcome = cli("run", "--no-prefix", "-i", "x", "true")

    assert (0, "one\ntwo\n") == (outcome.code, outcome.out)


async def elsewhere(_request: web.Request) -> web.Response:
    """Answer as a proxy does that wants people to log in."""
    return web.Response(status=302, headers={"Location": "https://login.example/"})


async def page(_request: web.Request) -> web.Response:
    """Answer as whatever else may listen at an address."""
    return web.Response(text="<html>hello</html>", content_type="text/html")


@pytest.mark.parametrize("verb", [["ps"], ["exec", "demo", "id"], ["events", "--follow"]])
def test_nobody_is_followed_to_another_address(
    cli: Cli, manager: FakeManager, verb: list[str]
) -> None:
    for path in (SESSIONS, f"{SESSIONS}/demo", "/v1/events"):
        manager.on("GET", path, elsewhere)

    outcome = cli(*verb)

    assert 69 == outcome.code
    assert "sends us elsewhere, to https://login.example/" in outcome.err


def test_what_is_no_stream_is_not_followed(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", "/v1/events", page)

    outcome = cli("events", "--follow")

    assert 69 == outcome.code
    assert "is no stream of events. Is it a manager that answers?" in outcome.err


def test_an_answer_without_an_end_is_not_read_to_it(
    cli: Cli, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST_BYTES", 10)
    manager.on("GET", SESSIONS, page)

    outcome = cli("ps")

    assert 69 == outcome.code
    assert "the manager's answer: is longer than" in outcome.err


def test_a_wait_whose_first_look_is_cut_off_goes_on(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", f"{SESSIONS}/demo", session())
    manager.on("GET", f"{ONE}/wait", CUT, session("succeeded", exit_code=0))

    assert 0 == cli("wait", "demo").code


def test_a_copy_that_is_cut_off_leaves_what_was_there_and_says_so(
    cli: Cli, manager: FakeManager, tmp_path: Path
) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
        await response.prepare(request)
        await response.write(half())
        assert request.transport is not None
        request.transport.abort()
        return response

    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_text("precious")
    manager.on("GET", f"{SESSIONS}/demo", session())
    manager.on("GET", f"{ONE}/archive", cut)

    outcome = cli("cp", "demo:/d", str(tmp_path))

    assert 69 == outcome.code
    assert "No file is half written here" in outcome.err
    assert {"d/a": b"precious"} == files(tmp_path)


def test_an_archive_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_text("precious")

    with pytest.raises(Failure, match="ended early"):
        archive.unpack_copy(io.BytesIO(half()), str(tmp_path))

    assert {"d/a": b"precious"} == files(tmp_path)


@pytest.mark.parametrize("number", ENDING)
def test_a_copy_that_is_ended_by_a_signal_leaves_nothing_half_written(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", COPY, str(tmp_path), str(int(number))]

    done = subprocess.run(command, input=half(), check=False, timeout=30)

    assert -number == done.returncode
    assert (["d"], {}) == (os.listdir(tmp_path), files(tmp_path))


def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        info = tarfile.TarInfo("a")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"said"))
    target.seek(0)

    archive.unpack_copy(target, str(pipe))

    assert b"said" == os.read(reader, 100)
    os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize("number", ENDING)
def test_a_terminal_is_as_it_was_when_a_signal_ends_us(number: signal.Signals) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-c", RAW, str(int(number))]

    done = subprocess.run(command, stdin=theirs, check=False, timeout=30)

    assert (-number, before) == (done.returncode, termios.tcgetattr(theirs))
    os.close(ours)
    os.close(theirs)


def test_what_is_ignored_ends_nothing_and_stays_ignored() -> None:
    ours, theirs = pty.openpty()
    code = (
        "import os, signal\nfrom phalanx_client import terminal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with terminal.raw():\n    os.kill(os.getpid(), signal.SIGHUP)\n"
        "assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
    )

    done = subprocess.run([sys.executable, "-c", code], stdin=theirs, check=False, timeout=30)

    assert 0 == done.returncode
    os.close(ours)
    os.close(theirs)
