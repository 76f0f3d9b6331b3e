"""`phalanx cluster` and `phalanx app`, as whole commands."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from phalanx_client.verbs.app import name_of
from phalanx_wire.api import EventView, TokenCreated, UploadCreated
from phalanx_wire.ids import AgentId
from phalanx_wire.pools import ClusterList, ClusterView
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import END, ID, FakeManager, problem, session, stream
from tests.unit.client.fake_manager import event as event_line

ALL = "/v1/clusters"
LAB = f"{ALL}/lab"
A = AgentId("a")


def pool(**fields: Any) -> ClusterView:
    given: dict[str, Any] = {
        "name": "lab", "state": "creating", "reason": "no agent has joined this cluster yet",
        "created_at": datetime(2030, 1, 1, tzinfo=UTC), "nodes": (), "ready": (), "sessions": (),
    }  # fmt: skip
    return ClusterView(**{**given, **fields})


RUNS = pool(state="running", reason=None, nodes=(A,), ready=(A,))


def test_create_prints_the_one_command_that_joins_a_host(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", ALL, pool())
    manager.on("POST", "/v1/agent-tokens", TokenCreated("t", "phxjoin1.abc", None))

    outcome = cli("cluster", "create", "lab")

    assert (0, "phalanx agent --join phxjoin1.abc\n") == (outcome.code, outcome.out)
    assert "As root on the new host, within 1h:\n" == outcome.err
    shown = json.loads(cli("cluster", "create", "lab", "-o", "json").out)
    assert ("lab", ["phalanx agent --join phxjoin1.abc"]) == (
        shown["cluster"]["name"],
        shown["join"],
    )
    assert {"name": "lab", "reuse_name": False} == json.loads(manager.heard[0].body)
    assert {"name": None, "cluster": "lab", "ttl_s": 3600.0} == json.loads(manager.heard[1].body)


def test_create_waits_for_as_many_hosts_as_there_shall_be(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", ALL, pool())
    manager.on("POST", "/v1/agent-tokens", TokenCreated("t", "one", None),
        TokenCreated("u", "two", None))  # fmt: skip
    manager.on("GET", f"{LAB}/wait", pool(), pool(state="running", nodes=(A,), ready=(A, A)))

    outcome = cli("create", "cluster", "lab", "--wait", "--nodes", "2", "--reuse-name")

    assert (0, "phalanx agent --join one\nphalanx agent --join two\n") == (
        outcome.code,
        outcome.out,
    )
    assert "lab is running: a, a" in outcome.err
    assert {"until": "ready", "nodes": "2", "timeout_s": "25"} == manager.heard[-1].query


def test_a_wait_that_is_over_says_what_is_missing(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", ALL, pool())
    manager.on("POST", "/v1/agent-tokens", TokenCreated("t", "one", None))
    manager.on("GET", f"{LAB}/wait", pool())
    manager.on("GET", LAB, pool())

    outcome = cli("cluster", "create", "lab", "--wait", "--timeout", "0.05s")

    assert 75 == outcome.code
    assert "it is creating: no agent has joined this cluster yet" in outcome.err


def test_ls_and_show_say_what_there_is(cli: Cli, manager: FakeManager) -> None:
    manager.on("GET", ALL, ClusterList((RUNS,)))
    manager.on("GET", LAB, RUNS)

    listed = cli("list", "clusters").out.splitlines()
    assert ["NAME  STATE    NODES  READY  SESSIONS  CREATED               REASON"] == listed[:1]
    assert listed[1].startswith("lab   running  1      1      0         2030-01-01 00:00:00Z")
    assert "lab\n" == cli("cluster", "ls", "-q", "--all").out
    assert {"all": "1"} == manager.heard[-1].query
    assert "ready    a" in cli("cluster", "show", "lab").out


def test_logs_follow_what_happens(cli: Cli, manager: FakeManager) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    happened = EventView(4, at, None, None, "agent.joined", "agent a joined cluster lab")
    manager.on("GET", f"{LAB}/events", stream(event_line("event", happened, "4"), END))

    outcome = cli("cluster", "logs", "lab", "-f")

    assert 0 == outcome.code
    assert "agent.joined" in outcome.out
    assert "agent a joined cluster lab" in outcome.out
    assert {"follow": "1"} == manager.heard[-1].query


def test_rm_says_what_it_waits_for_and_by_force_what_stays(cli: Cli, manager: FakeManager) -> None:
    manager.on("DELETE", LAB, pool(state="deleting", reason="away: a", leaves=("on a: all",)))
    manager.on("GET", f"{LAB}/wait", pool(state="deleted", reason=None, leaves=("on a: all",)))

    plain = cli("cluster", "rm", "lab")
    forced = cli("delete", "cluster", "lab", "--force", "--wait")

    assert (0, "lab is deleting: away: a\n") == (plain.code, plain.out)
    assert (0, "lab is deleted\n", "phalanx: left behind on a: all\n") == (
        forced.code,
        forced.out,
        forced.err,
    )
    assert {"force": "1"} == manager.asked("DELETE", LAB)[-1].query


@pytest.mark.parametrize(
    "words",
    [
        ("create",),
        ("rm",),
        ("ls", "lab"),
        ("ls", "--wait"),
        ("show", "lab", "--force"),
        ("rm", "lab", "--nodes", "2"),
        ("create", "lab", "--nodes", "0"),
        ("create", "lab", "--ttl", "soon"),
    ],
)
def test_bad_usage_is_told(cli: Cli, words: tuple[str, ...]) -> None:
    assert 64 == cli("cluster", *words).code


def test_a_refusal_is_told_with_what_to_do(cli: Cli, manager: FakeManager) -> None:
    manager.on("POST", ALL, lambda _request: refused())

    outcome = cli("cluster", "create", "lab")

    assert 65 == outcome.code
    assert "a cluster lab was removed" in outcome.err


async def refused() -> Any:
    return problem(409, "cluster_name_used", "a cluster lab was removed")


def test_an_app_is_its_folder_and_its_script(
    cli: Cli, manager: FakeManager, tmp_path: Path
) -> None:
    (tmp_path / "My_App.py").write_text("print(1)")
    manager.on("PUT", "/v1/uploads", UploadCreated("sha256:" + "0" * 64, 1))
    manager.on("POST", "/v1/sessions", session("pending"))

    script = str(tmp_path / "My_App.py")
    words = ("app", "run", script, "--cluster", "lab", "--cloud", "--detach", "--no-seal")
    outcome = cli(*words, "--", "-x", "1")
    spec = json.loads(manager.asked("POST", "/v1/sessions")[0].body)

    assert 0 == outcome.code
    assert ["python3", "-u", "My_App.py", "-x", "1"] == spec["command"]
    assert ("lab", "python:3") == (spec["cluster"], spec["image"])
    assert spec["name"].startswith("app-my-app-")


def test_apps_are_told_from_other_sessions_by_their_names(cli: Cli, manager: FakeManager) -> None:
    apps = {"sessions": [session("running", name="app-x"), session("running", name="other")]}
    manager.on("GET", "/v1/sessions", apps)

    assert "app-x\n" == cli("list", "apps", "-q").out
    assert ID in cli("app", "ls", "-o", "json").out


def test_an_app_that_is_no_file_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert 66 == cli("app", "run", str(tmp_path / "none.py")).code
    assert 64 == cli("app", "run").code
    assert 64 == cli("app", "run", __file__, "--upload", str(tmp_path)).code
    assert 64 == cli("app", "ls", "x.py").code


@pytest.mark.parametrize(
    ("wish", "script", "name"),
    [
        ("app-mine", "x.py", "app-mine"),
        ("mine", "x.py", "app-mine"),
        (None, "Train__It.v2.py", "app-train-it-v2-"),
        (None, "__.py", "app-script-"),
    ],
)
def test_an_apps_name_is_its_wish_or_its_script(wish: str | None, script: str, name: str) -> None:
    assert name_of(wish, script).startswith(name)
