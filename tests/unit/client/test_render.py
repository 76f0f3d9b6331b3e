from __future__ import annotations

from datetime import UTC, datetime

import pytest

from phalanx_client import render
from phalanx_wire.api import (
    Amounts,
    DryRun,
    EnvVar,
    EnvView,
    EventView,
    Holder,
    NodeView,
    RankEnv,
    TokenView,
)
from phalanx_wire.ids import AgentId, KernelId
from phalanx_wire.spec import RoleSpec, SessionSpec
from tests.unit.client.fake_manager import ID, session

NOW = datetime(2030, 1, 1, 1, 2, 3, tzinfo=UTC)


def test_a_table_of_sessions_says_where_they_are() -> None:
    views = [session(), session("pending", reason="no host has 8 gpus free", size=1)]

    assert render.sessions(views, NOW, wide=False).splitlines() == [
        "NAME  ID            STATE    SIZE  AGENTS   AGE   REASON",
        "demo  aaaabbbbcccc  running  2     host1:2  1h2m",
        "demo  aaaabbbbcccc  pending  1     host1    1h2m  no host has 8 gpus free",
    ]


def test_the_wide_table_has_the_whole_reason() -> None:
    reason = "because " * 20

    narrow = render.sessions([session(reason=reason)], NOW, wide=False)
    wide = render.sessions([session(reason=reason)], NOW, wide=True)

    assert reason.strip() not in narrow
    assert reason.strip() in wide


def test_a_session_in_full_has_a_line_for_each_container() -> None:
    text = render.session(session("failed", exit_code=3, reason="rank 1 exited with 3"), NOW)

    assert "reason     rank 1 exited with 3" in text
    assert "exit code  3" in text
    assert "1     sub1   host1  10.213.0.59  failed" in text


def test_control_characters_from_elsewhere_are_spelt_out() -> None:
    text = render.sessions([session(reason="\x1b[2Jboo")], NOW, wide=False)

    assert "\\x1b[2Jboo" in text


def test_the_environment_shows_once_what_all_ranks_share() -> None:
    shared = EnvVar("WORLD_SIZE", "2", "phalanx", "PyTorch env://")
    view = EnvView(
        "default",
        tuple(
            RankEnv(rank, f"h{rank}", (EnvVar("RANK", str(rank), "phalanx"), shared))
            for rank in (0, 1)
        ),
    )

    assert render.env(view).splitlines() == [
        "profile default",
        "",
        "all ranks",
        "  VARIABLE      FROM     READ BY",
        "  WORLD_SIZE=2  phalanx  PyTorch env://",
        "",
        "rank 0 (h0)",
        "  VARIABLE  FROM     READ BY",
        "  RANK=0    phalanx",
        "",
        "rank 1 (h1)",
        "  VARIABLE  FROM     READ BY",
        "  RANK=1    phalanx",
    ]


def test_nodes_show_used_of_capacity_and_who_holds_them() -> None:
    view = NodeView(
        name=AgentId("host1"), cluster="default", state="degraded", reason="its engine is gone",
        address="10.0.0.1", engine="20.10", capacity=Amounts(16, 32 << 30, 8, 100),
        used=Amounts(1.5, 2 << 30, 1, 10), gpu_models=("h200",), swarm="active",
        last_seen_at=NOW, holders=(Holder(ID, "demo", KernelId("k"), "main1"),) * 2,
        strays=("container x",), warnings=("memlock is limited",), host_ports="61000-61999",
        public_key="Q#mA0",
    )  # fmt: skip

    assert render.nodes([view], NOW, wide=False).splitlines() == [
        "NAME   STATE     CPU     MEMORY        GPU       SESSIONS  REASON",
        "host1  degraded  1.5/16  2 GiB/32 GiB  1/8 h200  demo      its engine is gone",
    ]
    assert render.nodes([view], NOW, wide=True).splitlines()[2:] == [
        "host1: warning: memlock is limited",
        "host1: host network: ports 61000-61999",
        "host1: key: Q#mA0",
        "host1: stray: container x",
    ]
    assert render.strays([view]).splitlines() == [
        "NODE   KIND       NAME  IF IT IS NOBODY'S",
        "host1  container  x     look: docker logs NAME; end: docker rm -f NAME",
    ]
    assert render.strays([]).startswith("no strays")


def test_a_dry_run_names_the_agent_of_each_rank_or_why_it_waits() -> None:
    spec = SessionSpec(roles=(RoleSpec("main"), RoleSpec("sub", 2)))
    agents = tuple(AgentId(name) for name in ("a", "a", "b"))

    assert render.dry_run(DryRun(spec, agents, None)).splitlines() == [
        "RANK  HOST   AGENT",
        "0     main1  a",
        "1     sub1   a",
        "2     sub2   b",
    ]
    assert "it would wait: full" == render.dry_run(DryRun(spec, None, "full"))


def test_an_event_is_a_time_and_a_sentence() -> None:
    view = EventView(7, NOW, ID, 1, "kernel.running", "rank 1 (sub1) runs")

    assert "2030-01-01 01:02:03Z  rank 1 (sub1) runs" == render.event(view, wide=False)


def test_tokens_say_what_became_of_them() -> None:
    view = TokenView("t1", "agent", "host1", "", NOW, None, "host1", revoked=True)

    assert (
        "t1  agent  host1         2030-01-01 01:02:03Z  never    host1    revoked"
        == (render.tokens([view]).splitlines()[1])
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-5, "0s"), (59.9, "59s"), (61, "1m1s"), (3600, "1h"), (90061, "1d1h")],
)
def test_a_span_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert text == render.span(seconds)
