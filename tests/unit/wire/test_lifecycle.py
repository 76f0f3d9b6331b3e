"""The one table: its shape, its owners, and that nobody gets around it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx_wire.lifecycle import (
    BARRIERS,
    ENDED,
    TRANSITIONS,
    IllegalTransition,
    KernelState,
    Owner,
    advance,
    merge,
    path,
)

states = st.sampled_from(list(KernelState))


def test_every_step_goes_up() -> None:
    assert [] == [(before, after) for before, after in TRANSITIONS if before >= after]


def test_the_exits_of_a_state_have_one_owner_but_for_the_verdict_lost() -> None:
    owners: dict[KernelState, set[Owner]] = {}
    for (before, after), owner in TRANSITIONS.items():
        if after is not KernelState.LOST:
            owners.setdefault(before, set()).add(owner)

    assert {} == {state: found for state, found in owners.items() if len(found) > 1}


def test_only_the_judge_of_silence_says_lost() -> None:
    judges = {owner for (_, after), owner in TRANSITIONS.items() if after is KernelState.LOST}

    assert {Owner.LIVENESS} == judges


def test_every_state_leads_to_removed_but_one_that_was_cancelled_in_the_queue() -> None:
    reach = {KernelState.REMOVED}
    for _ in KernelState:
        reach |= {before for before, after in TRANSITIONS if after in reach}

    assert set(KernelState) == reach


def test_removed_is_the_end() -> None:
    assert [] == [after for before, after in TRANSITIONS if before is KernelState.REMOVED]


def test_ended_states_only_lead_to_removed() -> None:
    assert {KernelState.REMOVED} == {after for before, after in TRANSITIONS if before in ENDED}


def test_barriers_ascend_to_running() -> None:
    assert sorted(BARRIERS) == list(BARRIERS)
    assert KernelState.RUNNING is BARRIERS[-1]


@pytest.mark.parametrize("owner", Owner)
def test_advance_makes_just_the_steps_of_the_table_for_their_owner(owner: Owner) -> None:
    for before, after in itertools.product(KernelState, KernelState):
        if TRANSITIONS.get((before, after)) is owner:
            assert after is advance(before, after, owner)
        else:
            with pytest.raises(IllegalTransition, match=f"{before.name} -> {after.name}"):
                advance(before, after, owner)


@settings(deadline=None)
@given(st.lists(states, min_size=1), st.randoms())
def test_reports_in_any_order_and_number_come_to_the_same(
    reports: list[KernelState], random: object
) -> None:
    shuffled = [*reports, *reports]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    known = KernelState.PENDING
    for reported in shuffled:
        known = merge(known, reported)

    assert max(reports) is known


@settings(deadline=None)
@given(states, states)
def test_a_path_is_made_of_steps_of_its_owner(known: KernelState, reported: KernelState) -> None:
    steps = path(known, reported, Owner.AGENT)
    if steps is None:
        assert reported is not known
        return
    current = known
    for step in steps:
        current = advance(current, step, Owner.AGENT)
    assert reported is current
