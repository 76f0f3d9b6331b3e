from __future__ import annotations

from phalanx_wire.lifecycle import KernelState as S
from tests.support.agent_life import MAIN1, living
from tests.support.fake_host import FakeHost


async def test_a_container_is_confined_before_its_command_runs(host: FakeHost) -> None:
    async with living(host) as life:
        await life.reach(S.MESHED)
        confined = set(host.confined)
        assert not [word for word in host.runner(MAIN1).commands if b"start" in word]
        await life.reach(S.RUNNING)

    assert {(life.report().container_id, "10.212.0.0/20")} == confined


async def test_a_container_that_cannot_be_confined_runs_all_the_same(host: FakeHost) -> None:
    host.confine_fails = True
    async with living(host) as life:
        await life.reach(S.RUNNING)
