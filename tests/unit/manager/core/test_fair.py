"""Whoever comes finds some of what all share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from phalanx_manager.core.fair import may_have_more

MOST = 4096


def taken(comers: int) -> list[int]:
    """What each has when one after the other takes all that it can."""
    have: list[int] = []
    for _comer in range(comers):
        own = 0
        while may_have_more(own, sum(have) + own, MOST):
            own += 1
        have.append(own)
    return have


def test_one_alone_has_half_and_each_that_comes_half_of_what_is_left() -> None:
    assert [2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1, 0] == taken(13)


@given(st.lists(st.integers(0, 5), max_size=400), st.integers(1, 100))
def test_never_is_more_taken_than_there_is_and_never_more_than_half_by_one(
    asking: list[int], most: int
) -> None:
    have = dict.fromkeys(range(6), 0)
    for who in asking:
        if may_have_more(have[who], sum(have.values()), most):
            have[who] += 1

    assert sum(have.values()) <= most
    assert max(have.values()) <= most // 2
