"""What a running session notices when one of our own, or an engine, is killed."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from phalanx_lab.lab import Host
from tests.real.ground import ACROSS, Ground, await_true, ranks

pytestmark = pytest.mark.real

# Counts until a file appears, then ends with its own code: nobody has to wait for a clock.
RANKS = 3
INCOMPLETE = 75
COUNT = "i=0; until [ -e /tmp/enough ]; do i=$((i+1)); echo $i; sleep 0.1; done; exit 7"


def counts(ground: Ground, session: str) -> dict[int, list[int]]:
    """How far each rank has counted, by the logs."""
    done = ground.phalanx("logs", session)
    assert done.code in (0, INCOMPLETE), done.err
    told = ranks(done.out)
    return {rank: [int(line) for line in said] for rank, said in told.items()}


def counting(ground: Ground, *arguments: str) -> str:
    """A running session of counters; its name."""
    name = ground.detached("-N", str(RANKS), *ACROSS, *arguments, "--", "sh", "-c", COUNT)
    await_true("all count", lambda: len(counts(ground, name)) == RANKS)
    return name


def await_progress(ground: Ground, session: str) -> None:
    """Wait until every rank has counted on. A manager that has just come cannot read the logs of
    an agent that is not back yet, so the first look waits for all of them, too.
    """
    before: dict[int, int] = {}

    def further() -> bool:
        now = counts(ground, session)
        if len(now) < RANKS:
            return False
        if not before:
            before.update({rank: said[-1] for rank, said in now.items()})
        return all(now[rank][-1] > before[rank] for rank in before)

    await_true("all count on", further)


def finish(ground: Ground, session: str) -> None:
    """Let the counters end, and see that each did it by itself and that no line is lost."""
    ground.phalanx("exec", session, "--all", "--", "touch", "/tmp/enough").ok()

    assert 7 == ground.phalanx("wait", session).code
    assert [7, 7, 7] == [kernel["exit_code"] for kernel in ground.show(session)["kernels"]]
    for said in counts(ground, session).values():
        assert list(range(1, len(said) + 1)) == said


def container_ids(ground: Ground) -> set[str]:
    """Ids and start times of all containers of all engines."""
    return {
        line
        for host in ground.lab.hosts
        for line in ground.docker(
            host, "ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.CreatedAt}}"
        )
        .ok()
        .splitlines()
    }


def test_a_session_does_not_notice_that_the_manager_was_killed(clean: Ground) -> None:
    name = counting(clean, "--on-failure", "continue")
    before, first = container_ids(clean), clean.lab.pid("manager")

    clean.lab.fault("kill", "manager")
    await_true("there is a new one", lambda: clean.lab.pid("manager") not in (0, first))
    await_progress(clean, name)
    assert before == container_ids(clean)
    finish(clean, name)


def test_who_follows_a_session_is_still_there_after_the_manager_was_killed(clean: Ground) -> None:
    with clean.start(
        "run", "-c", "0.5", "-m", "64M", "-i", "phalanx/base", "-J", "followed", "--no-prefix",
        "--", "sh", "-c", COUNT,
    ) as following:  # fmt: skip
        assert following.stdout is not None
        assert "1\n" == following.stdout.readline()
        first = clean.lab.pid("manager")
        clean.lab.fault("kill", "manager")
        await_true("there is a new one", lambda: clean.lab.pid("manager") not in (0, first))
        await_true("it answers", lambda: answers(clean))
        # Agents come back a moment later; what needs one waits for it.
        there = clean.inside("followed", "echo", "there").ok()
        clean.inside("followed", "touch", "/tmp/enough").ok()
        out, err = following.communicate(timeout=60)

    assert "there\n" == there
    assert 7 == following.returncode, err
    said = [int(line) for line in out.split()]
    assert list(range(2, len(said) + 2)) == said


def answers(ground: Ground) -> bool:
    """Whether the manager leads and serves."""
    try:
        return ground.http("GET", "/readyz").status == 200
    except (OSError, http.client.HTTPException):
        return False


def test_what_ends_while_the_manager_is_away_has_its_code_afterwards(clean: Ground) -> None:
    name = clean.detached(
        "-N", "3", *ACROSS, "--", "sh", "-c", "until [ -e /tmp/x ]; do sleep 0.1; done; exit 3"
    )
    clean.await_state(name, "running")
    containers = containers_of(clean, name)
    clean.lab.fault("stop", "manager")
    try:
        for host, container in containers:
            clean.docker(host, "exec", container, "touch", "/tmp/x").ok()
    finally:
        clean.lab.fault("kill", "manager")

    assert 3 == clean.phalanx("wait", name).code


def containers_of(ground: Ground, session: str) -> list[tuple[Host, str]]:
    """A session's containers as their engines know them."""
    label = f"label=io.phalanx.session={ground.show(session)['id']}"
    return [
        (host, container)
        for host in ground.lab.hosts
        for container in ground.docker(host, "ps", "-q", "--filter", label).ok().split()
    ]


def test_a_session_does_not_notice_that_an_agent_was_killed(clean: Ground) -> None:
    name = counting(clean, "--on-failure", "continue")
    before, first = container_ids(clean), clean.lab.pid("agent-2")

    clean.lab.fault("kill", "agent-2")
    await_true("there is a new one", lambda: clean.lab.pid("agent-2") not in (0, first))
    await_true("it has come back", lambda: ready(clean, "host2"))
    await_progress(clean, name)
    assert before == container_ids(clean)
    finish(clean, name)


def test_a_command_beside_ends_with_its_agent_and_what_one_has_left_before_goes_on(
    clean: Ground,
) -> None:
    name = clean.detached("-N", "1", "--", "sleep", "1000")
    clean.await_state(name, "running")
    ((host, container),) = containers_of(clean, name)
    agent = f"agent-{host.index}"
    notes = Path(clean.lab.plan.agent_memory(host.index), "x")
    clean.phalanx("exec", name, "--", "sh", "-c", "sleep 4321 >/dev/null 2>&1 &").ok()
    beside = clean.start("exec", name, "--", "sh", "-c", "echo on; sleep 1234; true")
    assert beside.stdout is not None
    began, first = beside.stdout.readline(), clean.lab.pid(agent)
    noted = len(os.listdir(notes))

    clean.lab.fault("kill", agent)
    _, said = beside.communicate(timeout=60)
    await_true("there is a new one", lambda: clean.lab.pid(agent) not in (0, first))
    await_true("it has ended", lambda: "1234" not in clean.docker(host, "top", container).ok())
    await_true("nothing is noted", lambda: not os.listdir(notes))
    left = clean.docker(host, "top", container).ok()
    clean.phalanx("stop", name).ok()

    assert ("on\n", INCOMPLETE, 1) == (began, beside.returncode, noted), said
    assert ("sleep 4321" in left, "sleep 1000" in left) == (True, True), left


@pytest.mark.parametrize("moment", ["create", "start"])
def test_an_agent_that_is_killed_as_it_brings_a_container_up_goes_on_where_it_was(
    clean: Ground, moment: str
) -> None:
    first, host = clean.lab.pid("agent-2"), clean.host("host2")
    with engine_events(host, moment) as heard:
        name = clean.detached(
            "-N", "3", *ACROSS, "--on-failure", "continue", "--", "sh", "-c", COUNT
        )
        heard.readline()
        clean.lab.fault("kill", "agent-2")
    await_true("all count", lambda: len(counts(clean, name)) == 3)

    assert first != clean.lab.pid("agent-2")
    finish(clean, name)


def test_what_ends_while_its_agent_is_away_has_its_code_afterwards(clean: Ground) -> None:
    name = counting(clean, "--on-failure", "continue")
    first = clean.lab.pid("agent-2")
    clean.lab.fault("stop", "agent-2")
    try:
        for host, container in containers_of(clean, name):
            clean.docker(host, "exec", container, "touch", "/tmp/enough").ok()
        (there,) = [one for host, one in containers_of(clean, name) if host.name == "host2"]
        await_true("the command has ended", lambda: has_ended(clean, clean.host("host2"), there))
    finally:
        clean.lab.fault("kill", "agent-2")

    assert 7 == clean.phalanx("wait", name).code
    assert first != clean.lab.pid("agent-2")
    assert [7, 7, 7] == [kernel["exit_code"] for kernel in clean.show(name)["kernels"]]


def has_ended(ground: Ground, host: Host, container: str) -> bool:
    """Whether nothing but the runner is left."""
    return len(ground.docker(host, "top", container).ok().splitlines()) == 2


@contextlib.contextmanager
def engine_events(host: Host, kind: str) -> Iterator[IO[str]]:
    """An engine's events of one kind that are about sessions' containers, one a line."""
    chosen = ("--filter", f"event={kind}", "--filter", "label=io.phalanx.session")
    command = ["docker", "-H", f"unix://{host.engine_socket}", "events", *chosen]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listening:
        try:
            assert listening.stdout is not None
            yield listening.stdout
        finally:
            listening.kill()


def ready(ground: Ground, host: str) -> bool:
    """Whether a node takes work, on the session network too."""
    nodes = {node["name"]: node for node in ground.http("GET", "/v1/nodes").ok()["nodes"]}
    return nodes[host]["state"] == "ready" and "active" in nodes[host]["swarm"]


def test_a_killed_engine_fails_its_sessions_and_says_so(clean: Ground) -> None:
    on_three = counting(clean)
    first = clean.lab.pid("engine-3")
    beside = clean.start("exec", f"{on_three}/sub2", "--", "sh", "-c", "echo on; sleep 1000")
    assert beside.stdout is not None
    began = beside.stdout.readline()

    clean.lab.fault("kill", "engine-3")
    _, said = beside.communicate(timeout=60)
    view = clean.await_state(on_three, "failed", within=90)
    await_true("there is a new one", lambda: clean.lab.pid("engine-3") not in (0, first))
    await_true("it takes work", lambda: all(ready(clean, h.name) for h in clean.lab.hosts), 90)
    again = clean.run("-N", "3", *ACROSS, "--", "echo", "here", timeout=120).ok()

    assert "sub2" in view["reason"]
    assert "host3" in view["reason"]
    assert "engine" in view["reason"].lower()
    assert ("on\n", 75) == (began, beside.returncode), said
    assert {0: ["here"], 1: ["here"], 2: ["here"]} == ranks(again)


def test_a_session_can_be_stopped_while_it_is_being_prepared(clean: Ground) -> None:
    clean.lab.fault("stop", "agent-2")
    try:
        name = clean.detached("-N", "3", *ACROSS, "--", "echo", "ran")
        clean.await_state(name, "scheduled", "preparing")
        clean.phalanx("stop", "--detach", name).ok()
    finally:
        clean.lab.fault("cont", "agent-2")
    view = clean.await_state(name, "cancelled")

    assert [None] * 3 == [kernel["exit_code"] for kernel in view["kernels"]]
    assert "" == clean.phalanx("logs", name).out
