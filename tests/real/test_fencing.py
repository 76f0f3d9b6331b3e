"""A host that its manager does not hear ends its containers before anybody gives them up."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from phalanx_lab import daemons
from phalanx_lab.lab import Host, Lab
from phalanx_runner import lease
from phalanx_runner.messages import FENCED_CODE
from tests.real.ground import (
    ACROSS,
    Ground,
    assert_same_traces,
    await_true,
    fresh_name,
    settled_traces,
)

pytestmark = pytest.mark.real

LAB = f"real{os.getpid()}f"
LOST_AFTER_S = 16.0
UNANSWERED_S = 4.0
"""Long enough to be no accident, and far from the moment at which containers are ended."""

VERDICT_WITHIN_S = 60.0
SWARM_HEALS_S = 120.0
"""Engines whose swarm was cut need half a minute or more until its networks attach again."""

WAIT = "trap 'exit 5' TERM; while :; do sleep 0.1; done"
BEATS = (
    "date +%s.%N >> /share/beats.$PHALANX_SESSION_ID.$RANK.$PHALANX_ATTEMPT; "
    '[ "$PHALANX_ATTEMPT" = 2 ] && exit 0; sleep 0.1'
)
"""Each rank of each attempt writes down when it runs; only the first attempt goes on for ever."""


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Three hosts of a manager that bears little silence."""
    config = tmp_path_factory.mktemp("hasty") / "config.toml"
    patch = pytest.MonkeyPatch()
    patch.setenv("PHALANX_CONFIG", str(config))
    settings: dict[str, str | float] = {"lost_after_s": LOST_AFTER_S, "heartbeat_s": 1.0}
    try:
        with Lab.up(LAB, 3, manager=settings) as lab:
            lab.load("base")
            ground = Ground(lab, config)
            # What an engine makes for its first network over several hosts stays.
            ground.run("-N", "3", *ACROSS, "--", "true").ok()
            yield ground
    finally:
        patch.undo()


@pytest.fixture
def sessions(hasty: Ground) -> Iterator[dict[Host, str]]:
    """A session on each host, each of which needs more than half of its memory; in the end nothing
    may be left of them.
    """
    before = settled_traces(hasty)
    share = f"{hasty.lab.plan.mem * 6 // 10 >> 20}M"
    names = [fresh_name() for _host in hasty.lab.hosts]
    for name in names:
        hasty.phalanx(
            "run", "--detach", "-J", name, "-c", "0.1", "-m", share, "-i", "phalanx/base",
            "--", "sh", "-c", WAIT,
        ).ok()  # fmt: skip
    views = [hasty.await_state(name, "running", within=60) for name in names]
    yield {hasty.host(view["kernels"][0]["agent"]): view["id"] for view in views}
    assert_same_traces(before, hasty)


def container(ground: Ground, host: Host, session: str) -> dict[str, Any]:
    """What the host's engine knows of the session's one container."""
    label = f"label=io.phalanx.session={session}"
    found = ground.docker(host, "ps", "-aq", "--no-trunc", "--filter", label).ok().split()
    (told,) = json.loads(ground.docker(host, "inspect", *found).ok())
    return dict(told)


def left_s(ground: Ground, host: Host, session: str) -> float:
    """For how long the session's runner will go on if its agent says nothing more."""
    folder = Path(ground.lab.plan.agent_memory(host.index)) / "k" / f"{session}-1-0"
    return lease.parse((folder / lease.FILE).read_text()) - lease.now_s()


def lost_at(ground: Ground, session: str) -> datetime | None:
    """When the manager gave the session's container up."""
    events = ground.http("GET", f"/v1/sessions/{session}/events").ok()
    found = [event["at"] for event in events if event["kind"] == "kernel.lost"]
    return moment(found[0]) if found else None


def is_given_up(ground: Ground, session: str) -> bool:
    """Whether the manager has given the session's container up."""
    return lost_at(ground, session) is not None


def is_explained(ground: Ground, session: str, said: str) -> bool:
    """Whether the host has told why the container had ended."""
    (kernel,) = ground.http("GET", f"/v1/sessions/{session}").ok()["kernels"]
    return said in kernel["reason"]


def moment(text: str) -> datetime:
    """Read a time of ours or of an engine's, which has nanoseconds."""
    head, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{fraction[:6]:0<6}").replace(tzinfo=UTC)


def test_no_rank_outlives_the_time_after_which_it_is_given_up(
    hasty: Ground, sessions: dict[Host, str]
) -> None:
    lab = hasty.lab
    first = {host: container(hasty, host, session) for host, session in sessions.items()}
    cut_off, dead, frozen = lab.hosts

    # Shorter: nothing happens.
    lab.fault("cut", cut_off.name)
    unanswered = LOST_AFTER_S - 2 - UNANSWERED_S
    await_true("it waits", lambda: left_s(hasty, cut_off, sessions[cut_off]) < unanswered)
    lab.fault("heal", cut_off.name)
    await_true("it is heard", lambda: left_s(hasty, cut_off, sessions[cut_off]) > unanswered + 2)
    after = container(hasty, cut_off, sessions[cut_off])
    assert (first[cut_off]["Id"], True) == (after["Id"], after["State"]["Running"])
    assert first[cut_off]["State"]["StartedAt"] == after["State"]["StartedAt"]

    # Longer: each ends by itself, before the manager says so.
    supervisor = lab.pid("supervisor")
    lab.fault("cut", cut_off.name)
    os.kill(supervisor, signal.SIGSTOP)  # it would start the agent anew
    try:
        lab.fault("kill", f"agent-{dead.index}")
        lab.fault("stop", f"agent-{frozen.index}")
        for host, session in sessions.items():
            given_up = partial(is_given_up, hasty, session)
            await_true(f"{host.name} is given up", given_up, VERDICT_WITHIN_S)
        ended = {host: container(hasty, host, session) for host, session in sessions.items()}
    finally:
        lab.fault("cont", f"agent-{frozen.index}")
        os.kill(supervisor, signal.SIGCONT)
        lab.fault("heal", cut_off.name)
    codes = {host: state["State"]["ExitCode"] for host, state in ended.items()}
    assert {cut_off: 5, dead: FENCED_CODE, frozen: FENCED_CODE} == codes
    for host, session in sessions.items():
        verdict = lost_at(hasty, session)
        assert verdict is not None
        assert first[host]["Id"] == ended[host]["Id"]
        assert moment(ended[host]["State"]["FinishedAt"]) < verdict

    # Back again: cleaned up (see the fixture), and explained.
    said = f"given up as lost (after {LOST_AFTER_S:g} s)"
    for session in sessions.values():
        await_true("it is explained", partial(is_explained, hasty, session, said), 60)
        assert "lost" == hasty.show(session)["kernels"][0]["state"]


@pytest.mark.timeout(400)
def test_a_gang_goes_on_without_a_lost_host_which_can_then_be_forgotten_and_join_anew(
    hasty: Ground,
) -> None:
    lab, beating = hasty.lab, ("sh", "-c", f"while :; do {BEATS}; done")
    shared = (*ACROSS, "-v", f"{lab.plan.state}/share:/share:rw", "--grace", "1s")
    gang = hasty.detached("-N", "2", *shared, "--requeue", "--", *beating)
    once = hasty.detached("-N", "3", *shared, "--", *beating)
    for name in (gang, once):
        hasty.await_state(name, "running", within=SWARM_HEALS_S)
    home = hasty.containers(gang)["sub1"]
    too_early = hasty.phalanx("node", "forget", home)
    lab.fault("cut", home)
    try:
        code, given_up = hasty.phalanx("wait", gang).code, hasty.phalanx("wait", once).code
        events = hasty.phalanx("events", gang).ok()
        elsewhere = set(hasty.containers(gang).values())
        hasty.phalanx("node", "forget", home).ok()
        left = hasty.http("GET", "/v1/nodes").ok()["nodes"]
    finally:
        lab.fault("heal", home)
    views = {name: hasty.show(name) for name in (gang, once)}

    assert 0 != too_early.code
    assert "is connected" in too_early.err
    assert (0, "succeeded", 2) == (code, views[gang]["state"], views[gang]["attempt"])
    assert {host.name for host in lab.hosts} - {home} == elsewhere
    assert f"agent {home} is lost" in events
    assert (1, "failed") == (views[once]["attempt"], views[once]["state"])
    assert 0 != given_up
    assert home in views[once]["reason"]
    assert sorted(elsewhere) == sorted(node["name"] for node in left)
    for rank in range(2):
        first, second = (beats(hasty, views[gang]["id"], rank, attempt) for attempt in (1, 2))
        assert max(first) < min(second)
    join_anew(hasty, hasty.host(home))


def beats(ground: Ground, session: str, rank: int, attempt: int) -> list[float]:
    """When a rank was seen to run in one attempt."""
    file = Path(ground.lab.plan.state) / "share" / f"beats.{session}.{rank}.{attempt}"
    return [float(line) for line in file.read_text().split()]


def join_anew(ground: Ground, host: Host) -> None:
    """Let a forgotten host join by its name; what it still has is shown, with what to do."""
    plan, part = ground.lab.plan, f"agent-{host.index}"
    token = ground.http("POST", "/v1/agent-tokens", {"name": host.name}).ok()
    supervisor, first = ground.lab.pid("supervisor"), ground.lab.pid(part)
    os.kill(supervisor, signal.SIGSTOP)  # it would start the agent anew
    try:
        ground.lab.fault("kill", part)
        shutil.rmtree(f"{host.state_dir}/agent")
        daemons.agent_config(plan, host.index, token["token"])
    finally:
        os.kill(supervisor, signal.SIGCONT)
    await_true("there is a new agent", lambda: ground.lab.pid(part) not in (0, first))

    def strays() -> list[str]:
        told = json.loads(ground.phalanx("nodes", "--strays", "-o", "json").ok())
        every = (stray.split(" ", 1) for node in told["nodes"] for stray in node["strays"])
        return [name for kind, name in every if kind == "container"]

    await_true("it shows what it still has", lambda: len(strays()) == 2)
    for stray in strays():
        ground.docker(host, "rm", "-f", stray).ok()
    await_true("it has no containers any more", lambda: strays() == [], 60)
