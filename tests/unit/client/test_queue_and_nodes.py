"""The verbs about attempts and about hosts, as whole commands."""

from __future__ import annotations

import json
from typing import Any

from phalanx_wire.api import Amounts, Holder, NodeList, NodeView
from phalanx_wire.ids import AgentId, KernelId
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import END, ID, FakeManager, session, stream

SESSIONS = "/v1/sessions"
ONE = f"{SESSIONS}/{ID}"


def node(**fields: Any) -> NodeView:
    given = {
        "name": AgentId("host1"),
        "cluster": "default",
        "state": "ready",
        "reason": None,
        "address": "10.0.0.1",
        "engine": "20.10",
        "capacity": Amounts(16, 32 << 30, 0, 100),
        "used": Amounts(1, 2 << 30, 0, 10),
        "gpu_models": (),
        "swarm": "active",
        "last_seen_at": None,
        "holders": (Holder(ID, "demo", KernelId("k"), "main1"),),
        "strays": (),
        "warnings": (),
    }
    return NodeView(**{**given, **fields})


def test_requeue_says_what_became_of_each(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", f"{SESSIONS}/demo/requeue", session("stopping", reason="requeued by ada"))

    outcome = cli("requeue", "demo")

    assert (0, "demo is stopping: requeued by ada\n") == (outcome.code, outcome.err)


def test_hold_release_and_extend_ask_for_just_that(cli: Cli, manager: FakeManager) -> None:
    for verb in ("hold", "release", "extend"):
        manager.on("POST", f"{SESSIONS}/demo/{verb}", session("pending"))

    codes = [cli("hold", "demo").code, cli("release", "demo").code]
    assert [0, 0, 0] == [*codes, cli("extend", "demo", "+30m").code]
    assert {"seconds": 1800.0} == json.loads(manager.heard[-1].body)
    assert 64 == cli("extend", "demo", "soon").code


def test_node_drain_sends_its_wish_and_says_what_is_left(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", "/v1/nodes/host1/drain", node(state="draining", reason="ada: disks"))

    outcome = cli("node", "drain", "host1", "--reason", "disks", "--deadline", "30m")

    assert (0, "host1 is draining: ada: disks; it still has demo\n") == (outcome.code, outcome.out)
    assert {"reason": "disks", "deadline_s": 1800.0, "signal": None} == json.loads(
        manager.heard[0].body
    )


def test_node_undrain_and_forget_ask_for_just_that(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", "/v1/nodes/host1/undrain", node(state="ready", holders=()))
    manager.on("POST", "/v1/nodes/host1/forget", {})

    assert "host1 is ready\n" == cli("node", "undrain", "host1").out
    assert "host1 is forgotten" in cli("node", "forget", "host1").err
    assert 64 == cli("node", "undrain", "host1", "--reason", "x").code


def test_strays_are_listed_with_what_to_do(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", "/v1/nodes", NodeList((node(strays=("container phx-x",)), node())))

    assert "docker rm -f NAME" in cli("nodes", "--strays").out
    assert "container phx-x\n" == cli("nodes", "--strays", "-o", "name").out


def test_logs_of_an_earlier_attempt_are_asked_for(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", f"{SESSIONS}/demo", session())
    manager.on("GET", f"{ONE}/logs", stream(END))

    assert 0 == cli("logs", "demo", "--attempt", "1").code
    assert "1" == manager.heard[-1].query["attempt"]
