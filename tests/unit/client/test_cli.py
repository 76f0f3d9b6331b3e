"""The command line against a manager's HTTP, as whole commands."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest
import yaml
from aiohttp import web

from phalanx_client.__main__ import PROGRAMS, VERBS
from phalanx_wire.api import (
    DryRun,
    NodeList,
    SessionList,
    SessionView,
    TokenCreated,
    UploadCreated,
)
from phalanx_wire.ids import AgentId
from phalanx_wire.spec import SessionSpec
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import (
    END,
    ID,
    TOKEN,
    FakeManager,
    as_json,
    event,
    fails,
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


def test_every_verb_has_help(cli: Cli) -> None:
    for verb in VERBS:
        outcome = cli(verb, "--help")
        assert 0 == outcome.code, verb
        assert f"usage: phalanx {verb}" in outcome.out
        assert VERBS[verb][1] in outcome.out


def test_the_list_of_verbs_names_all(cli: Cli) -> None:
    text = cli("--help").out

    assert [] == [verb for verb in (*VERBS, *PROGRAMS) if f"\n  {verb} " not in text]


def test_help_imports_neither_parser_nor_shapes() -> None:
    code = (
        "import sys; sys.argv = ['phalanx', '--help']\n"
        "from phalanx_client.__main__ import main; main()\n"
        "print([name for name in ('argparse', 'asyncio', 'msgspec') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == out.stdout.splitlines()[-1]


def test_a_plain_verb_needs_no_event_loop(manager: FakeManager) -> None:
    manager.on("GET", SESSIONS, SessionList(()))
    code = (
        f"import sys; sys.argv = ['phalanx', '--url', '{manager.url}', 'ps']\n"
        "from phalanx_client.__main__ import main; main()\n"
        "print([name for name in ('asyncio', 'aiohttp', 'yaml') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == out.stdout.splitlines()[-1]


def test_ps_lists_sessions_with_the_token(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", SESSIONS, SessionList((session(),)))

    outcome = cli("ps")

    assert (0, "") == (outcome.code, outcome.err)
    assert "demo  aaaabbbbcccc  running  2" in outcome.out
    assert f"Bearer {TOKEN}" == manager.heard[0].headers["Authorization"]


def test_ps_asks_for_states(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", SESSIONS, SessionList(()))

    cli("ps", "--state", "failed", "-n", "3")

    assert {"state": "failed", "all": "1", "limit": "3"} == manager.heard[0].query


@pytest.mark.parametrize(("argv", "expected"), [(("-q",), f"{ID}\n"), (("-o", "name"), "demo\n")])
def test_ps_prints_what_scripts_want(
    cli: Cli, manager: FakeManager, argv: tuple[str, ...], expected: str
) -> None:
    manager.on("GET", SESSIONS, SessionList((session(),)))

    assert expected == cli("ps", *argv).out


def test_json_and_yaml_are_the_apis_own_shape(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", f"{SESSIONS}/demo", session())
    expected = json.loads(msgspec.json.encode(session()))

    assert expected == json.loads(cli("show", "demo", "-o", "json").out)
    assert expected == yaml.safe_load(cli("-o", "yaml", "show", "demo").out)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, 65),
        (401, 77),
        (403, 77),
        (404, 66),
        (409, 65),
        (422, 65),
        (429, 75),
        (500, 69),
        (503, 75),
    ],
)
def test_a_refusal_is_its_sentence_and_an_exit_code(
    cli: Cli, manager: FakeManager, status: int, code: int
) -> None:
    manager.on("GET", f"{SESSIONS}/demo", fails(status, "c", "what happened", hint="what to do"))

    outcome = cli("show", "demo")

    assert (code, "", "phalanx: what happened\n  what to do\n") == (
        outcome.code, outcome.out, outcome.err,
    )  # fmt: skip


def test_the_path_of_a_mistake_is_shown(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", SESSIONS, fails(400, "bad", "it is too large", field="roles[1].replicas"))

    outcome = cli("run", "-i", "x", "--", "true")

    assert (65, "phalanx: roles[1].replicas: it is too large\n") == (outcome.code, outcome.err)


def test_an_answer_that_is_no_problem_document_is_a_sentence(
    cli: Cli, manager: FakeManager
) -> None:
    async def proxy(_request: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway</html>")

    manager.on("GET", SESSIONS, proxy)

    outcome = cli("ps")

    assert 69 == outcome.code
    assert "the manager, or something before it, answered 502" in outcome.err


def test_an_answer_of_another_version_is_a_sentence(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", SESSIONS, {"sessions": [{"id": 7}]})

    outcome = cli("ps")

    assert 69 == outcome.code
    assert "Do client and manager have the same version?" in outcome.err


def test_a_manager_that_is_not_there_is_69_at_once(cli: Cli) -> None:
    outcome = cli("--url", "http://127.0.0.1:9", "ps")

    assert 69 == outcome.code
    assert "http://127.0.0.1:9: can't be reached (connection refused)" in outcome.err


def test_a_name_that_can_not_exist_is_a_sentence(cli: Cli) -> None:
    outcome = cli("--url", "http://a..b:1", "ps")

    assert 69 == outcome.code
    assert "http://a..b:1: can't be reached" in outcome.err


def test_a_terminal_that_knows_few_characters_gets_them_spelt(manager: FakeManager) -> None:
    manager.on("GET", SESSIONS, SessionList((session(reason="日本 " * 30),)))
    done = subprocess.run(
        [sys.executable, "-m", "phalanx_client", "--url", manager.url, "ps"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )

    assert (0, b"") == (done.returncode, done.stderr)
    assert b"\\u65e5" in done.stdout


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("pss",),
        ("ps", "--nope"),
        ("ps", "--limit=-1"),
        ("run", "-N", "many", "--", "x"),
        ("logs",),
        ("logs", "demo", "--rank", "x"),
        ("show", "a/b/c"),
        ("cp", "a", "b"),
        ("cp", "a:/x", "b:/y"),
        ("exec", "demo"),
        ("exec", "demo", "--all"),
        ("exec", "demo", "--all", "-i", "--", "x"),
        ("token", "create"),
        ("token", "revoke"),
        ("wait", "demo", "--timeout", "soon"),
    ],
)
def test_bad_usage_is_64_and_one_sentence(cli: Cli, argv: tuple[str, ...]) -> None:
    outcome = cli(*argv)

    assert (64, "") == (outcome.code, outcome.out)
    assert "Traceback" not in outcome.err


def test_a_misspelt_verb_gets_a_proposal(cli: Cli) -> None:
    assert "did you mean 'logs'?" in cli("log").err


def test_a_bug_is_a_sentence_and_with_debug_a_trace(
    cli: Cli, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("phalanx_client.session.Client.sessions", broken)

    assert "this is a bug in phalanx: ZeroDivisionError: oops" in cli("ps").err
    monkeypatch.setenv("PHALANX_DEBUG", "1")
    assert "Traceback" in cli("ps").err


# ---------------------------------------------------------------- run


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

    cli("run", "--detach", "-i", "x", "--upload", str(tmp_path), "true")

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


def test_logs_select_ranks_and_time(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", f"{SESSIONS}/demo", session())
    manager.on("GET", f"{ONE}/logs", stream(line(1, "x"), END))

    outcome = cli("logs", "demo/sub1", "--since", "2030-01-01T00:00:00Z", "--tail", "5")

    assert "[1 sub1]  x\n" == outcome.out
    assert {"follow": "0", "rank": "1", "since": "2030-01-01T00:00:00Z", "tail": "5"} == (
        manager.asked("GET", f"{ONE}/logs")[0].query
    )


def test_logs_pass_a_line_on_as_it_is_when_nobody_sees_it(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", f"{SESSIONS}/demo", session())
    manager.on("GET", f"{ONE}/logs", stream(line(0, "\x1b]0;t\x07x\x1b[2J"), END))

    assert "\x1b]0;t\x07x\x1b[2J\n" == cli("logs", "demo", "--no-prefix").out


def test_events_are_one_line_each(cli: Cli, manager: FakeManager) -> None:
    one = {
        "id": 3, "at": "2030-01-01T00:00:00Z", "session": ID, "rank": None,
        "kind": "session.running", "text": "it runs",
    }  # fmt: skip
    manager.on("GET", f"{SESSIONS}/demo/events", stream(event("event", one, "3"), END))

    assert "2030-01-01 00:00:00Z  it runs\n" == cli("events", "demo").out
    assert one == json.loads(cli("events", "demo", "-o", "json").out)


def test_stop_tells_all_then_waits(cli: Cli, manager: FakeManager) -> None:
    for name in ("a", "b"):
        manager.on("POST", f"{SESSIONS}/{name}/stop", session("stopping"))
        manager.on("GET", f"{SESSIONS}/{name}/wait", session("cancelled", name=name))

    outcome = cli("stop", "a", "b", "--grace", "3s")

    assert 0 == outcome.code
    assert "a has ended: cancelled\nb has ended: cancelled\n" == outcome.err
    assert ["stop", "stop", "wait", "wait"] == [one.path.split("/")[-1] for one in manager.heard]
    assert {"grace_s": 3.0} == json.loads(manager.heard[0].body)


def test_kill_sends_a_signal_to_one_rank(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", f"{SESSIONS}/demo", session())
    manager.on("POST", f"{SESSIONS}/demo/signal", {})

    assert 0 == cli("kill", "-s", "USR1", "demo/sub1").code
    assert {"signal": "USR1", "ranks": [1]} == json.loads(manager.heard[-1].body)


def test_wait_ends_with_the_sessions_code(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", f"{SESSIONS}/demo/wait", session("failed", exit_code=9))

    assert 9 == cli("wait", "demo").code


def test_a_wait_that_takes_too_long_is_75(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", f"{SESSIONS}/demo/wait", session("running"))

    outcome = cli("wait", "demo", "--timeout", "2s")

    assert 75 == outcome.code
    assert "is not ended after 2 s" in outcome.err


def test_a_token_for_an_agent_says_what_to_do_with_it(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", "/v1/agent-tokens", TokenCreated("t1", "phxjoin1.x", None))

    outcome = cli("token", "create", "--agent", "host1", "--ttl", "5m")

    assert "phxjoin1.x\n" == outcome.out
    assert 'name = "host1"' in outcome.err
    assert {"name": "host1", "cluster": "default", "ttl_s": 300.0} == (
        json.loads(manager.heard[0].body)
    )


def test_a_token_is_revoked(cli: Cli, manager: FakeManager) -> None:
    manager.on("DELETE", "/v1/tokens/t1", {})

    assert 0 == cli("token", "revoke", "t1").code


def test_a_node_that_does_not_exist_is_not_found(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", "/v1/nodes", NodeList(()))

    assert 66 == cli("nodes", "host9").code


# ---------------------------------------------------------------- files


def archive_of(name: str, content: bytes | None) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        info = tarfile.TarInfo(name)
        if content is None:
            info.type = tarfile.DIRTYPE
        else:
            info.size = len(content)
        tar.addfile(info, io.BytesIO(content or b""))
    return target.getvalue()


def gives(data: bytes) -> object:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=data, content_type="application/x-tar")

    return answer


def test_a_file_is_copied_out(cli: Cli, manager: FakeManager, tmp_path: Path) -> None:
    manager.on("GET", f"{SESSIONS}/demo", session())
    manager.on("GET", f"{ONE}/archive", gives(archive_of("model.pt", b"weights")))

    outcome = cli("cp", "demo/1:/out/model.pt", str(tmp_path))

    assert 0 == outcome.code
    assert b"weights" == (tmp_path / "model.pt").read_bytes()
    assert {"rank": "1", "path": "/out/model.pt"} == manager.heard[-1].query


@pytest.mark.parametrize(
    ("exists", "folder", "name"), [(None, "/data", "x"), (b"", "/", "data"), ("no", "/", "data")]
)
def test_a_file_goes_into_a_folder_or_gets_a_new_name(
    cli: Cli, manager: FakeManager, tmp_path: Path, exists: bytes | str | None, *, folder: str,
    name: str,
) -> None:  # fmt: skip
    (tmp_path / "x").write_text("1")
    manager.on("GET", f"{SESSIONS}/demo", session())
    there = (
        fails(404, "no_such_path", "no")
        if isinstance(exists, str)
        else gives(archive_of("data", exists))
    )
    manager.on("GET", f"{ONE}/archive", there)
    manager.on("PUT", f"{ONE}/archive", {})

    assert 0 == cli("cp", str(tmp_path / "x"), "demo:/data").code
    sent = manager.asked("PUT", f"{ONE}/archive")[0]
    with tarfile.open(fileobj=io.BytesIO(sent.body)) as tar:
        assert ({"rank": "0", "path": folder}, [name]) == (sent.query, tar.getnames())


# ---------------------------------------------------------------- as whole processes


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
