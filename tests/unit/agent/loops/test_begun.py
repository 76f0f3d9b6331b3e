"""Gangs that have begun to start: peers whose keys are made anew, kernels that are not to run, and
those of which their host has lost what it knew.
"""

from __future__ import annotations

from collections import deque

import msgspec
import pytest

from phalanx_agent.docker.port import Unavailable
from phalanx_wire.lifecycle import KernelState as S
from tests.support.agent_life import MAIN1, assignment, gang, living
from tests.support.fake_host import FakeHost

AWAY = Unavailable("the engine", "asking it", "It does not answer.", kind="not_sent")


async def test_a_peer_whose_keys_were_made_anew_is_trusted_before_it_is_looked_for(
    host: FakeHost,
) -> None:
    before = gang(2)
    main, sub = before.members
    renewed = msgspec.structs.replace(
        before, members=(main, msgspec.structs.replace(sub, host_key="hk-new"))
    )
    async with living(host) as life:
        await life.aim(assignment(S.READY), of=before)
        await life.aim(assignment(S.MESHED), of=renewed)

        assert S.MESHED is life.state()
        assert "hk-new" in host.scratch.text(MAIN1, "ssh/known_hosts")


async def test_a_begun_kernel_that_is_not_to_run_any_more_was_stopped(host: FakeHost) -> None:
    async with living(host) as life:
        host.engine.failures["start"] = deque([AWAY] * 9)
        await life.aim(assignment(S.RUNNING))
        await life.aim(assignment(S.STOPPED))
        await life.pass_time(60)
        await life.until(lambda: life.state() is S.STOPPED)

        assert ("cancelled", None) == (life.report().cause, life.report().exit_code)


@pytest.mark.parametrize("size", [1, 2])
async def test_a_host_that_has_lost_all_it_knew_of_a_running_kernel_does_not_run_it_again(
    host: FakeHost, size: int
) -> None:
    async with living(host) as life:
        await life.aim(assignment(S.READY), of=gang(size))
        await life.aim(assignment(S.RUNNING, begun=True), of=gang(size))
        assert S.RUNNING is life.state()
    host.engine.containers.clear()
    host.scratch.clear(MAIN1)
    host.scratch.notes.clear()
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING, begun=True), of=gang(size))
        await life.until(lambda: life.state() is S.EXITED)

        assert "removed by someone else" in life.report().message
        assert 1 == host.engine.calls.count("create_container")


@pytest.mark.parametrize("agent", ["lives", "is dead"])
async def test_a_container_that_somebody_starts_a_second_time_is_ended_without_its_command(
    host: FakeHost, agent: str
) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING)
        begun_again(host)
        if agent == "lives":
            await life.until(lambda: life.state() is S.EXITED)
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING))
        await life.until(lambda: life.state() is S.EXITED)
        report = life.report()

    assert ("engine-restart", None) == (report.cause, report.exit_code)
    assert "a second time" in report.message
    assert [b"stop"] == [command.split(b'"')[3] for command in host.runner(MAIN1).commands[2:]]


def begun_again(host: FakeHost) -> None:
    """Somebody restarts the container by hand; its new runner knows of nothing."""
    host.runner(MAIN1).ring.clear()
    host.engine.restart(host.engine.of(MAIN1).id)
    host.runner(MAIN1).booted()
