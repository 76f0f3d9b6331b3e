"""When a kernel has to end by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from phalanx_agent.core.fence import ENGINE_KILL_S, LAST_S, Fence, fence, fence_of

SECONDS = st.floats(0, 1e6)


def test_the_grace_lies_before_the_kill_and_the_kill_before_the_end() -> None:
    assert Fence(stop_at=1288.0, kill_at=1298.0) == fence(1000.0, 300.0, 10.0)


def test_a_long_grace_is_cut_to_a_quarter_of_the_time() -> None:
    assert Fence(stop_at=1223.0, kill_at=1298.0) == fence(1000.0, 300.0, 3600.0)


@given(SECONDS, st.floats(10, 86_400), SECONDS)
def test_all_is_over_before_the_lease_is(answered_s: float, lost_s: float, grace_s: float) -> None:
    found = fence(answered_s, lost_s, grace_s)

    assert answered_s < found.stop_at <= found.kill_at
    assert found.kill_at + ENGINE_KILL_S < answered_s + lost_s
    assert found == fence_of(answered_s + lost_s - LAST_S, lost_s, grace_s)
