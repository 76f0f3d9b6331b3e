"""Gangs that have begun to start: peers whose keys are made anew, kernels that are not to run."""

from __future__ import annotations

from collections import deque

import msgspec

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
