"""`phalanx run` and `create`, against a manager's HTTP."""

from __future__ import annotations

import asyncio
import io
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from phalanx_wire.api import DryRun, SessionView, UploadCreated
from phalanx_wire.ids import AgentId
from phalanx_wire.spec import SessionSpec
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import (
    END,
    ID,
    FakeManager,
    as_json,
    event,
    line,
    session,
    stream,
)

SESSIONS = "/v1/sessions"
ONE = f"/v1/sessions/{ID}"


def a_run(manager: FakeManager, ended: SessionView, *logs: str | None) -> None:
    """Prepare what `phalanx run` asks for."""
    manager.on("POST", SESSIONS, session("pending"))
    manager.on("GET", f"{ONE}/wait", session("running"), ended)
    manager.on("GET", f"{ONE}/logs", stream(*logs))


def test_run_prints_merged_output_and_ends_with_the_sessions_code(
    cli: Cli, manager: FakeManager
) -> None:
    ended = session("failed", exit_code=3, reason="rank 1 (sub1) exited with 3")
    a_run(manager, ended, line(0, "hello"), line(1, "oops", stderr=True), END)

    outcome = cli("run", "-N", "2", "-i", "alpine", "--", "sh", "-c", "x -- y")

    assert 3 == outcome.code
    assert "[0 main1] hello\n" == outcome.out
    assert (
        "demo is pending\n[1 sub1]  oops\n"
        "phalanx: session demo failed: rank 1 (sub1) exited with 3\n"
    ) == outcome.err
    sent = msgspec.json.decode(manager.asked("POST", SESSIONS)[0].body, type=SessionSpec)
    assert SessionSpec(kind="batch", size=2, image="alpine", command=("sh", "-c", "x -- y")) == sent


LACKING = "the output of sub1 is not complete: agent gpu-1: it is not connected"


def test_logs_that_are_not_complete_say_so_and_ask_to_try_again(
    cli: Cli, manager: FakeManager
) -> None:
    manager.on("GET", f"{SESSIONS}/demo", session())
    lacking = event("end", {"missing": [LACKING]})
    manager.on("GET", f"{ONE}/logs", stream(line(0, "hello"), lacking))

    outcome = cli("logs", "demo")

    assert (75, "[0 main1] hello\n") == (outcome.code, outcome.out)
    assert LACKING in outcome.err


def test_run_says_what_was_missing_and_ends_with_the_sessions_code(
    cli: Cli, manager: FakeManager
) -> None:
    ended = session("succeeded", exit_code=0)
    a_run(manager, ended, line(0, "hello"), event("end", {"missing": [LACKING]}))

    outcome = cli("run", "-i", "alpine", "true")

    assert 0 == outcome.code
    assert f"phalanx: {LACKING}\n" in outcome.err


def test_run_submits_with_a_fresh_key_each_time(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", SESSIONS, session())

    for _ in range(2):
        cli("run", "--detach", "-i", "x", "true")

    keys = {one.headers["Idempotency-Key"] for one in manager.asked("POST", SESSIONS)}
    assert 2 == len(keys)


def test_run_detached_prints_the_name_and_quietly_the_id(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", SESSIONS, session())

    assert "demo\n" == cli("run", "--detach", "-i", "x", "true").out
    assert f"{ID}\n" == cli("run", "--detach", "-q", "-i", "x", "true").out


def test_run_waiting_prints_no_output_of_the_session(cli: Cli, manager: FakeManager) -> None:
    a_run(manager, session("succeeded", exit_code=0))

    outcome = cli("run", "--wait", "-i", "x", "true")

    assert (0, "") == (outcome.code, outcome.out)
    assert [] == manager.asked("GET", f"{ONE}/logs")


def test_a_dry_run_starts_nothing(cli: Cli, manager: FakeManager, tmp_path: Path) -> None:
    plan = DryRun(SessionSpec(), (AgentId("host1"),), None)
    manager.on("POST", SESSIONS, plan)

    outcome = cli("run", "--dry-run", "-i", "x", "--upload", str(tmp_path), "true")

    assert "0           host1" in outcome.out
    assert [{"dry_run": "1"}] == [one.query for one in manager.heard]


def test_output_goes_on_where_it_broke_and_nothing_is_told_twice(
    cli: Cli, manager: FakeManager
) -> None:
    a_run(manager, session("succeeded", exit_code=0))
    manager.on(
        "GET",
        f"{ONE}/logs",
        stream(line(0, "one", "p1"), line(0, "two"), None),
        stream(line(0, "two"), line(0, "three", "p3"), None),
        stream(line(0, "four", "p4"), END),
    )

    outcome = cli("run", "--no-prefix", "-i", "x", "true")

    assert (0, "one\ntwo\nthree\nfour\n") == (outcome.code, outcome.out)
    assert [None, "p1", "p3"] == [
        one.headers.get("Last-Event-ID") for one in manager.asked("GET", f"{ONE}/logs")
    ]
    assert "trying again" in outcome.err


def test_a_broken_wait_is_asked_again(cli: Cli, manager: FakeManager) -> None:
    a_run(manager, session("succeeded", exit_code=0), END)
    manager.on(
        "GET", f"{ONE}/wait", session("running"), stream(None), session("succeeded", exit_code=0)
    )

    assert 0 == cli("run", "-i", "x", "true").code


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (session("cancelled"), 130),
        (session("timeout"), 124),
        (session("failed"), 1),
        (session("cancelled", exit_code=143), 143),
    ],
)
def test_an_end_without_a_code_of_its_own_has_one(
    cli: Cli, manager: FakeManager, ended: SessionView, code: int
) -> None:
    a_run(manager, ended, END)

    assert code == cli("run", "-q", "-i", "x", "true").code


def test_an_upload_is_sent_first_and_named_in_the_session(
    cli: Cli, manager: FakeManager, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("print()")
    manager.on("PUT", "/v1/uploads", UploadCreated("sha256:abc", 7))
    manager.on("POST", SESSIONS, session())

    cli("run", "--detach", "-i", "x", "--upload", str(tmp_path), "--no-seal", "true")

    sent = manager.asked("PUT", "/v1/uploads")[0]
    with tarfile.open(fileobj=io.BytesIO(sent.body)) as tar:
        assert ["train.py"] == tar.getnames()
    spec = msgspec.json.decode(manager.asked("POST", SESSIONS)[0].body, type=SessionSpec)
    assert "sha256:abc" == spec.upload


def test_a_missing_upload_is_refused_before_anything_is_sent(
    cli: Cli, manager: FakeManager
) -> None:
    outcome = cli("run", "-i", "x", "--upload", "/no/such", "true")

    assert (66, []) == (outcome.code, manager.heard)


def test_create_returns_when_the_session_runs(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", SESSIONS, session("pending"))
    manager.on(
        "GET", f"{ONE}/wait", session("preparing", reason="pulls the image"), session("running")
    )

    outcome = cli("create", "-N", "2", "-i", "x")

    assert (0, "demo\n") == (outcome.code, outcome.out)
    assert "demo is pending\ndemo is preparing: pulls the image\n" in outcome.err
    spec = msgspec.json.decode(manager.asked("POST", SESSIONS)[0].body, type=SessionSpec)
    assert SessionSpec(kind="interactive", size=2, image="x") == spec


def test_create_says_why_a_session_could_not_start(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", SESSIONS, session("pending"))
    ended = session("failed", reason="no such image")
    manager.on("GET", f"{ONE}/wait", session("stopping"), session("stopping"), ended)

    outcome = cli("create", "-i", "x")

    assert (1, "") == (outcome.code, outcome.out)
    assert "session demo failed: no such image" in outcome.err


# ---------------------------------------------------------------- looking and ending


def test_the_first_interrupt_stops_the_session_and_its_output_goes_on(
    manager: FakeManager,
) -> None:
    told = asyncio.Event()

    async def stop(_request: web.Request) -> web.Response:
        told.set()
        return as_json(session("stopping"))

    async def logs(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(line(0, "up", "p1").encode())
        await told.wait()
        await response.write((line(0, "down", "p2") + END).encode())
        await response.write_eof()
        return response

    a_run(manager, session("cancelled", exit_code=143))
    manager.on("GET", f"{ONE}/logs", logs)
    manager.on("POST", f"{ONE}/stop", stop)
    argv = ["--url", manager.url, "run", "--no-prefix", "-i", "x", "true"]
    with subprocess.Popen(
        [sys.executable, "-m", "phalanx_client", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "up\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "down\n" == process.stdout.readline()
        said = process.stderr.read()
    assert 143 == process.returncode
    assert "stopping demo; Ctrl-C again leaves at once" in said
    assert 1 == len(manager.asked("GET", f"{ONE}/logs"))


def test_a_reader_that_leaves_ends_the_command_quietly(manager: FakeManager) -> None:
    async def logs(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(line(0, "x" * 1000, "p").encode())

    manager.on("GET", f"{SESSIONS}/demo", session())
    manager.on("GET", f"{ONE}/logs", logs)
    argv = ["--url", manager.url, "logs", "demo", "-f"]
    with subprocess.Popen(
        [sys.executable, "-m", "phalanx_client", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert (141, b"") == (process.returncode, said)
