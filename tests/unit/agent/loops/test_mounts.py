from __future__ import annotations

from phalanx_wire.lifecycle import KernelState as S
from phalanx_wire.spec import Mount
from tests.support.agent_life import MAIN1, assignment, living
from tests.support.fake_host import FakeHost

SHARED = (Mount("/share/data", "/data"),)


async def test_a_container_with_its_mounts_runs(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.RUNNING, mounts=SHARED)


async def test_a_container_whose_folder_was_exchanged_never_runs_its_command(
    host: FakeHost,
) -> None:
    host.mounts_hold = False
    async with living(host) as life:
        await life.aim(assignment(S.RUNNING, mounts=SHARED))
        await life.until(lambda: life.state() is S.EXITED)

        assert ("start-failed", 137) == (life.report().cause, life.report().exit_code)
        assert "exchanged" in life.report().message
        assert [] == [word for word in host.runner(MAIN1).commands if b"start" in word]
