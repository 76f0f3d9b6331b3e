"""What every store does with a change that comes while another of the same kernel is written."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from phalanx_manager.core.observe import KernelChange, moved
from phalanx_wire.lifecycle import KernelState, Owner
from tests.support.house import later
from tests.support.store_case import ONE, Case

S = KernelState
PATIENCE_S = 10.0


async def test_whoever_comes_too_late_can_read_what_it_came_too_late_for(case: Case) -> None:
    """It looks again at once: were the old state still there, it would do so for ever."""
    await case.submit()
    await case.join()
    await case.place()
    (kernel,) = (await case.row()).kernels

    def to(state: KernelState, owner: Owner) -> KernelChange:
        after = moved(replace(kernel, cause="cause"), (state,), later(2))
        return KernelChange(kernel.state, (state,), owner, after, ("said",))

    async def late() -> tuple[bool, KernelState]:
        recorded = await case.store.record((to(S.REJECTED, Owner.AGENT),), (), later(2))
        return recorded, (await case.store.load()).sessions[ONE].kernels[0].state

    async with asyncio.timeout(PATIENCE_S):
        first, second = await asyncio.gather(
            case.store.record((to(S.LOST, Owner.LIVENESS),), (), later(2)), late()
        )

    assert (True, (False, S.LOST)) == (first, second)
