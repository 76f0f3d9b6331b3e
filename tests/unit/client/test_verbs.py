"""Logs, events, stop, kill, wait, tokens, nodes and cp, against a manager's HTTP."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from aiohttp import web

from phalanx_wire.api import NodeList, TokenCreated
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import (
    END,
    ID,
    FakeManager,
    event,
    fails,
    line,
    session,
    stream,
)

SESSIONS = "/v1/sessions"
ONE = f"/v1/sessions/{ID}"


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
    assert {"signal": "USR1", "ranks": [1], "to": None} == json.loads(manager.heard[-1].body)


def test_wait_ends_with_the_sessions_code(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", f"{SESSIONS}/demo", session())
    manager.on("GET", f"{ONE}/wait", session("failed", exit_code=9))

    assert 9 == cli("wait", "demo").code


def test_a_wait_that_takes_too_long_is_75(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", f"{SESSIONS}/demo", session())
    manager.on("GET", f"{ONE}/wait", session("running"))

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
