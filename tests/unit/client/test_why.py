"""`phalanx why`, as a whole command."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from phalanx_wire.api import Finding, WhyView
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import END, ID, FakeManager, event, line, session, stream

PATH = "/v1/sessions/demo/why"


def view(*findings: Finding, attempt: int = 1) -> WhyView:
    at = datetime(2025, 3, 1, tzinfo=UTC)
    return WhyView(ID, "demo", "running", attempt, at, findings, ())


def test_reasons_come_in_order_with_what_to_do_and_how_sure_it_is(
    cli: Cli, manager: FakeManager
) -> None:
    manager.on(
        "GET",
        PATH,
        view(
            Finding("network-cut", "the network is cut", (0, 1), "look at the link"),
            Finding("not-connected", "rank 1 is\x1b[31m not there", (1,), certain=False),
            attempt=2,
        ),
    )

    outcome = cli("why", "demo")

    assert 0 == outcome.code
    assert (
        "demo: running, attempt 2\n"
        "1. the network is cut\n"
        "   look at the link\n"
        "2. likely: rank 1 is\\x1b[31m not there\n"
    ) == outcome.out


def test_one_reason_needs_no_number(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", PATH, view(Finding("busy", "nothing looks wrong")))

    assert "demo: running\nnothing looks wrong\n" == cli("why", "demo").out


def test_programs_get_codes_or_all_of_it(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", PATH, view(Finding("busy", "all is well")))

    assert "busy\n" == cli("why", "demo", "-o", "name").out
    told = json.loads(cli("why", "demo", "-o", "json").out)
    assert [{"code": "busy", "text": "all is well"}] == told["findings"]


def test_who_follows_or_reads_a_session_is_told_that_it_is_stuck(
    cli: Cli, manager: FakeManager
) -> None:
    stuck = {
        "id": 9,
        "at": "2025-03-01T12:00:00Z",
        "session": ID,
        "rank": 0,
        "kind": "session.stuck",
        "text": "its ranks are not connected",
    }
    manager.on("POST", "/v1/sessions", session("running"))
    manager.on("GET", f"/v1/sessions/{ID}/wait", session("succeeded", exit_code=0))
    logs = stream(line(0, "hello"), event("event", stuck), line(0, "again"), END)
    manager.on("GET", f"/v1/sessions/{ID}/logs", logs)

    manager.on("GET", "/v1/sessions/demo", session("running"))

    for words in (
        ("run", "-i", "alpine", "--no-prefix", "--", "true"),
        ("logs", "demo", "--no-prefix"),
    ):
        outcome = cli(*words)

        assert "hello\nagain\n" == outcome.out
        assert "phalanx: demo: its ranks are not connected\n" in outcome.err
