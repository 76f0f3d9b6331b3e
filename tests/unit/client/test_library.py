from __future__ import annotations

from dataclasses import astuple
from datetime import UTC, datetime

import pytest
from aiohttp import web

import phalanx_client
from phalanx_client import connection
from phalanx_client.blocking_client import BlockingClient
from phalanx_client.session import Client
from phalanx_wire.api import Finding, WhyView
from phalanx_wire.spec import SessionSpec
from tests.unit.client.fake_manager import ID, TOKEN, FakeManager, event, fails, session, stream

SPEC = SessionSpec(image="alpine", command=("id",))
WHY = WhyView(
    id=ID,
    name="demo",
    state="failed",
    attempt=1,
    looked_at=datetime(2030, 1, 1, tzinfo=UTC),
    findings=(
        Finding("rank-failed", "Rank 1 exited with 3.", (1,), "Read its last lines."),
        Finding("peers-lost", "The others lost their peer.", certain=False),
    ),
    missing=(),
)


def test_the_library_is_found_where_its_users_look_whatever_was_imported_before() -> None:
    assert Client is phalanx_client.Client
    assert BlockingClient is phalanx_client.BlockingClient
    assert connection.connect is phalanx_client.connect
    assert connection.connect_blocking is phalanx_client.connect_blocking


def test_a_name_that_the_library_does_not_have_is_an_ordinary_mistake() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clinet'"):
        _ = phalanx_client.Clinet


def a_session(manager: FakeManager, ended: str) -> None:
    """Prepare a session that is taken, runs and ends so."""
    view = session(ended, exit_code=0 if ended == "succeeded" else 3)  # type: ignore[arg-type]
    manager.on("POST", "/v1/sessions", session("pending"))
    manager.on("GET", f"/v1/sessions/{ID}/wait", view)
    manager.on("GET", f"/v1/sessions/{ID}/why", WHY)
    manager.on("POST", f"/v1/sessions/{ID}/stop", {})


def test_a_session_that_ended_well_is_its_own_result(manager: FakeManager) -> None:
    a_session(manager, "succeeded")

    with connection.connect_blocking(manager.url, TOKEN) as client:
        assert "succeeded" == client.run(SPEC).result().state


def test_a_session_that_failed_raises_what_why_says(manager: FakeManager) -> None:
    a_session(manager, "failed")

    with (
        connection.connect_blocking(manager.url, TOKEN) as client,
        pytest.raises(phalanx_client.SessionFailed) as failure,
    ):
        client.run(SPEC).result()

    assert WHY == failure.value.why
    assert 3 == failure.value.view.exit_code
    assert (
        "session demo: failed\n"
        "  Rank 1 exited with 3.\n"
        "    Read its last lines.\n"
        "  likely: The others lost their peer."
    ) == str(failure.value)


async def test_the_same_without_blocking(manager: FakeManager) -> None:
    a_session(manager, "failed")

    async with connection.connect(manager.url, TOKEN) as client:
        one = await client.run(SPEC)
        with pytest.raises(phalanx_client.SessionFailed):
            await one.running()


def test_what_is_not_done_in_time_says_why(manager: FakeManager) -> None:
    a_session(manager, "failed")
    manager.on("GET", f"/v1/sessions/{ID}/wait", session("pending"))

    with (
        connection.connect_blocking(manager.url, TOKEN) as client,
        pytest.raises(phalanx_client.Failure, match=r"demo has not ended after 0.2 s: Rank 1"),
    ):
        client.run(SPEC).result(timeout_s=0.2)


def test_leaving_the_block_stops_the_session(manager: FakeManager) -> None:
    a_session(manager, "succeeded")

    with connection.connect_blocking(manager.url, TOKEN) as client, client.run(SPEC):
        assert [] == manager.asked("POST", f"/v1/sessions/{ID}/stop")

    assert 1 == len(manager.asked("POST", f"/v1/sessions/{ID}/stop"))


def test_following_tells_lines_and_whose_they_are(manager: FakeManager) -> None:
    a_session(manager, "succeeded")
    line = {"rank": 1, "host_name": "sub1", "at_ns": 1, "stderr": False, "text": "hello"}
    manager.on("GET", f"/v1/sessions/{ID}/logs", stream(event("log", line), event("end", {})))
    told: list[str] = []

    with connection.connect_blocking(manager.url, TOKEN) as client:
        client.run(SPEC).follow(told.append)

    assert ["[1 sub1] hello"] == told


def test_a_missing_folder_is_told_before_anything_is_sent(manager: FakeManager) -> None:
    with (
        connection.connect_blocking(manager.url, TOKEN) as client,
        pytest.raises(phalanx_client.Failure, match="is no folder"),
    ):
        client.run(SPEC, upload="/nowhere")

    assert [] == manager.heard


async def test_a_commands_output_is_collected(manager: FakeManager) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for frame in (b"\x01one ", b"\x02err", b"\x01two"):
            await socket.send_bytes(frame)
        await socket.send_str('{"exit_code": 4}')
        await socket.close()
        return socket

    manager.on("GET", f"/v1/sessions/{ID}/exec", answer)

    async with connection.connect(manager.url, TOKEN) as client:
        found = await client.exec(ID, ["id"])
    with connection.connect_blocking(manager.url, TOKEN) as blocking:
        same = blocking.exec(ID, ["id"])  # a loop is running here, as in a notebook

    assert (4, b"one two", b"err", "one two") == (*astuple(found), found.text)
    assert found == same


def test_a_text_is_no_command_and_both_ways_to_mean_it_are_told(manager: FakeManager) -> None:
    with (
        connection.connect_blocking(manager.url, TOKEN) as client,
        pytest.raises(phalanx_client.Failure) as refused,
    ):
        client.exec(ID, "nvidia-smi -L")

    assert "['nvidia-smi', '-L']" in str(refused.value)
    assert "['sh', '-c', 'nvidia-smi -L']" in str(refused.value)
    assert [] == manager.heard


def test_a_command_that_cannot_run_is_refused_with_the_reason(manager: FakeManager) -> None:
    manager.on("GET", f"/v1/sessions/{ID}/exec", fails(409, "not_running", "demo does not run"))

    with (
        connection.connect_blocking(manager.url, TOKEN) as client,
        pytest.raises(phalanx_client.Refused, match="demo does not run"),
    ):
        client.exec(ID, ["id"])
