"""Commands in containers, over a WebSocket."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from aiohttp import WSMsgType, web

from phalanx_client import websocket
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import ID, FakeManager, fails, session

EXEC = f"/v1/sessions/{ID}/exec"
Said = list[str | bytes]


def a_command(manager: FakeManager, *frames: str | bytes, until_eof: bool = False) -> Said:
    """Prepare a command that says these frames; what it is told is collected."""
    told: Said = []

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if until_eof:
            async for message in socket:
                told.append(message.data)
                if message.type is WSMsgType.TEXT and "eof" in message.data:
                    break
        for frame in frames:
            if isinstance(frame, bytes):
                await socket.send_bytes(frame)
            else:
                await socket.send_str(frame)
        await socket.close()
        return socket

    manager.on("GET", "/v1/sessions/demo", session())
    manager.on("GET", EXEC, answer)
    return told


def test_a_commands_output_and_code_are_its_own(cli: Cli, manager: FakeManager) -> None:
    a_command(manager, b"\x01out\n", b"\x02err\n", '{"exit_code": 7}')

    outcome = cli("exec", "demo/sub1", "--", "sh", "-c", "exit 7")

    assert (7, "out\n", "err\n") == (outcome.code, outcome.out, outcome.err)
    assert {"rank": "1", "stdin": "0", "command": '["sh", "-c", "exit 7"]'} == (
        manager.asked("GET", EXEC)[0].query
    )


def test_a_command_that_is_too_long_to_be_sent_is_refused_with_the_way_out(
    cli: Cli, manager: FakeManager
) -> None:
    a_command(manager, '{"exit_code": 0}')

    outcome = cli("exec", "demo", "--", "echo", "x" * 70_000)

    assert 65 == outcome.code
    assert "phalanx cp" in outcome.err
    assert [] == manager.asked("GET", EXEC)


def test_options_may_follow_the_session_before_two_dashes(cli: Cli, manager: FakeManager) -> None:
    a_command(manager, b"\x01x\n", '{"exit_code": 0}')

    outcome = cli("exec", "demo", "--all", "--", "id")

    assert ["[0 main1] x", "[1 sub1]  x"] == sorted(outcome.out.splitlines())


def test_a_command_may_follow_the_session_without_dashes(cli: Cli, manager: FakeManager) -> None:
    a_command(manager, '{"exit_code": 0}')

    cli("exec", "demo", "ls", "-l")

    assert '["ls", "-l"]' == manager.asked("GET", EXEC)[0].query["command"]


def test_in_all_containers_the_first_code_that_is_not_0_counts(
    cli: Cli, manager: FakeManager
) -> None:
    codes = iter((0, 4))

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(json.dumps({"exit_code": next(codes)}))
        await socket.close()
        return socket

    manager.on("GET", "/v1/sessions/demo", session())
    manager.on("GET", EXEC, answer)

    assert 4 == cli("exec", "--all", "demo", "--", "x").code


def test_a_problem_at_the_end_is_its_sentence(cli: Cli, manager: FakeManager) -> None:
    problem = {"code": "link_lost", "title": "agent host1 is away", "status": 503}
    a_command(manager, json.dumps({"problem": problem}))

    outcome = cli("exec", "demo", "--", "x")

    assert (75, "phalanx: agent host1 is away\n") == (outcome.code, outcome.err)


def test_a_refused_handshake_is_explained(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", "/v1/sessions/demo", session())
    manager.on("GET", EXEC, fails(409, "not_running", "rank 0 (main1) is pending"))

    outcome = cli("exec", "demo", "--", "x")

    assert (65, "phalanx: rank 0 (main1) is pending\n") == (outcome.code, outcome.err)


def test_an_agent_that_comes_back_in_time_is_waited_for_with_a_word(
    cli: Cli, manager: FakeManager
) -> None:
    a_command(manager, b"\x01out\n", '{"exit_code": 0}')
    works, away = manager.answers["GET", EXEC][-1], fails(503, "unavailable", "it is away")
    manager.on("GET", EXEC, away, away, works)

    outcome = cli("exec", "demo", "--", "x")

    said = "phalanx: the container's agent: is not connected; trying again\n"
    assert (0, "out\n", said) == (outcome.code, outcome.out, outcome.err)


def test_an_agent_that_stays_away_is_told(
    cli: Cli, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "AWAY_WITHIN_S", 0.0)
    manager.on("GET", "/v1/sessions/demo", session())
    manager.on("GET", EXEC, fails(503, "unavailable", "agent host1: it is not connected"))

    outcome = cli("exec", "demo", "--", "x")

    assert (75, "phalanx: agent host1: it is not connected\n") == (outcome.code, outcome.err)


def test_a_connection_that_ends_before_the_command_is_a_sentence(
    cli: Cli, manager: FakeManager
) -> None:
    a_command(manager, b"\x01half")

    outcome = cli("exec", "demo", "--", "x")

    assert (69, "half") == (outcome.code, outcome.out)
    assert "the connection ended before the command did" in outcome.err


def test_standard_input_is_passed_on_to_its_end(manager: FakeManager) -> None:
    told = a_command(manager, b"\x01done\n", '{"exit_code": 0}', until_eof=True)
    argv = ["--url", manager.url, "exec", "-i", "demo", "--", "cat"]

    done = subprocess.run(
        [sys.executable, "-m", "phalanx_client", *argv], input=b"hello", capture_output=True,
        check=False,
    )  # fmt: skip

    assert (0, b"done\n", b"") == (done.returncode, done.stdout, done.stderr)
    assert [b"\x00hello", '{"eof": true}'] == told
