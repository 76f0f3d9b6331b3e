"""What an engine says of a container, believed as far as it can be true."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phalanx_agent.core.seen import Absent, Container, Created, Ended, Running
from phalanx_agent.docker.port import ContainerFacts, Folders, Unavailable
from phalanx_agent.loops.found import container_of, is_final
from phalanx_wire.ids import KernelId, SessionId
from phalanx_wire.lifecycle import KernelState as S
from tests.support.agent_life import MAIN1, living
from tests.support.fake_engine import refusal
from tests.support.fake_host import FakeHost

RUNS = ContainerFacts(
    id="c", name="n", kernel=KernelId("k"), session=SessionId("s"), attempt=1, spec_hash="",
    status="running", exit_code=0, oom_killed=False, error="", pid=7, started_at=5.0,
    finished_at=0.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "container"),
    [
        (None, Absent()),
        (RUNS, Running("c", 5.0)),
        (replace(RUNS, status="paused"), Running("c", 5.0)),
        (replace(RUNS, status="created", started_at=0.0), Created("c")),
        (replace(RUNS, status="exited", exit_code=137), Ended("c", 137, started_at=5.0)),
        (replace(RUNS, status="dead", exit_code=3), Ended("c", 3, started_at=5.0)),
        (replace(RUNS, status="removing"), Ended("c", 0, started_at=5.0)),
        (replace(RUNS, status="exited", started_at=0.0, error="no"), Created("c", "no")),
        (replace(RUNS, pid=0), Running("c", 5.0)),
        (replace(RUNS, status="asleep"), Running("c", 5.0)),
        (replace(RUNS, status="", started_at=0.0), Created("c")),
        (replace(RUNS, status="exited", exit_code=999), Running("c", 5.0)),
        (replace(RUNS, status="exited", exit_code=-1), Running("c", 5.0)),
    ],
    ids=lambda value: f"{value.status} {value.exit_code}" if hasattr(value, "pid") else None,
)
def test_an_end_is_believed_when_it_can_be_true(
    facts: ContainerFacts | None, container: Container
) -> None:
    assert container == container_of(facts)


async def test_a_code_that_no_process_has_is_not_the_sessions(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        container = host.engine.of(MAIN1).id
        host.engine.end(container, 999)
        await life.until(lambda: host.engine.of(MAIN1).exit_code == 999)
        await life.pass_time(1)
        doubted = life.state()
        host.engine.containers[container] = replace(host.engine.of(MAIN1), exit_code=3)
        life.watch.bell.set()
        await life.until(lambda: life.state() is S.EXITED)

        assert (S.RUNNING, 3) == (doubted, life.report().exit_code)


async def test_an_end_that_the_engine_has_missed_is_found_and_not_blamed_on_the_command(
    host: FakeHost,
) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        host.lives = False
        life.watch.bell.set()
        await life.until(lambda: life.state() is S.EXITED)

    assert ("engine-restart", 137) == (life.report().cause, life.report().exit_code)
    assert "was not noticed by the container engine" in life.report().message


async def test_who_is_there_again_at_the_second_look_is_left_alone(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        keeper = life.fleet._kept[MAIN1].keeper
        host.lives = False
        keeper.compare(host.engine.of(MAIN1))
        host.lives = True
        await life.settle()

        assert S.RUNNING is life.state()
        assert [] == host.engine.signals


@pytest.mark.parametrize(
    ("error", "tries", "final"),
    [
        (refusal(404, "No such image"), 1, True),
        (refusal(500, "no"), 2, False),
        (refusal(500, "no"), 3, True),
        (refusal(403, "Pool overlaps with other one"), 6, False),
        (refusal(403, "Pool overlaps with other one"), 7, True),
        (Unavailable("engine", "asking", "It does not answer."), 99, False),
    ],
    ids=str,
)
def test_what_an_engine_has_judged_is_final_and_what_passes_is_so_after_a_while(
    error: Unavailable, tries: int, *, final: bool
) -> None:
    assert final == is_final(error, tries)


async def test_where_the_engine_keeps_what_it_has_is_noted_as_soon_as_a_container_runs(
    host: FakeHost,
) -> None:
    begins = host.engine.started

    def tells(facts: ContainerFacts) -> None:
        host.engine.places = Folders("/run/engine", "/layers")
        begins(facts)

    host.engine.started = tells
    async with living(host) as life:
        await life.reach(S.CREATED)
        before = host.engine_folder
        await life.reach(S.RUNNING)

    assert ("", "/run/engine") == (before, host.engine_folder)
