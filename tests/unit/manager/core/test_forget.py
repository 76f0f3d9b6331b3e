"""Giving up a host: when that may be, and what it frees."""

from __future__ import annotations

from typing import Any

import pytest

from phalanx_manager.core.forget import forget
from phalanx_manager.core.model import Refusal
from phalanx_manager.core.observe import Changes
from phalanx_wire.lifecycle import KernelState
from tests.support.house import NOW, agent, row, snapshot

S = KernelState


def test_what_a_lost_host_holds_is_freed_and_what_others_hold_is_not() -> None:
    gone = agent("a", connected=False, lost=True)
    found = forget(snapshot([row("aab", [S.LOST, S.EXITED, S.STOPPED])], [gone]), gone, NOW)

    assert isinstance(found, Changes)
    assert [(0, S.LOST, S.REMOVED), (1, S.EXITED, S.REMOVED)] == [
        (change.after.rank, change.seen, change.after.state) for change in found.kernels
    ]
    assert [True] == [change.after.released for change in found.networks]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"connected": True, "lost": False}, "agent a is connected"),
        ({"connected": False, "lost": False}, "agent a is not taken for lost yet"),
    ],
)
def test_a_host_that_may_still_run_something_is_not_forgotten(
    fields: dict[str, Any], sentence: str
) -> None:
    record = agent("a", **fields)
    found = forget(snapshot([row("a", S.RUNNING)], [record]), record, NOW)

    assert isinstance(found, Refusal)
    assert (409, sentence) == (found.status, found.title)


def test_a_session_that_is_more_patient_than_others_is_waited_for() -> None:
    record = agent("a", connected=False, lost=True)
    found = forget(snapshot([row("a", S.RUNNING)], [record]), record, NOW)

    assert isinstance(found, Refusal)
    assert "node_not_lost" == found.code
