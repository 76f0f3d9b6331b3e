"""Waiting for the end of other sessions."""

from __future__ import annotations

import pytest

from phalanx_manager.core import after
from phalanx_manager.core.after import After, Never, Waits
from phalanx_manager.core.model import Session
from phalanx_wire.api import SessionState
from phalanx_wire.ids import SessionId
from tests.support.house import row, with_session

ONE, TWO = SessionId("aaaaaaaaaaaa"), SessionId("bbbbbbbbbbbb")


def other(state: SessionState) -> Session:
    return with_session(row("a"), state=state, name="first").session


def test_a_list_reads_back() -> None:
    text = "afterok:one,afterany:two-2,afternotok:three"
    wishes = after.parse(text)

    assert wishes is not None
    assert (After("afterok", "one"), text) == (wishes[0], after.spell(wishes))


@pytest.mark.parametrize("text", ["", "one", "afterok:", "afterok:A", "before:a", "afterok:a b"])
def test_anything_else_is_none(text: str) -> None:
    assert after.parse(text) is None


@pytest.mark.parametrize(
    ("kind", "state", "verdict"),
    [
        ("afterok", "succeeded", None),
        ("afterany", "failed", None),
        ("afterany", "succeeded", None),
        ("afternotok", "failed", None),
        ("afternotok", "cancelled", None),
        ("afterok", "running", Waits("waits for the end of session first")),
        ("afterok", "pending", Waits("waits for the end of session first")),
        (
            "afterok",
            "timeout",
            Never("it was to run after the success of session first, which is timeout"),
        ),
        (
            "afternotok",
            "succeeded",
            Never("it was to run after the failure of session first, which is succeeded"),
        ),
    ],
)
def test_the_end_of_the_other_decides(
    kind: after.Kind, state: SessionState, verdict: Waits | Never | None
) -> None:
    assert verdict == after.verdict([After(kind, ONE)], {ONE: other(state)})


def test_one_that_can_never_be_decides_before_others_have_ended() -> None:
    wishes = [After("afterok", ONE), After("afterok", TWO)]

    assert isinstance(
        after.verdict(wishes, {ONE: other("running"), TWO: other("failed")}), after.Never
    )


def test_of_one_that_nobody_knows_any_more_only_the_end_is_sure() -> None:
    assert after.verdict([After("afterany", ONE)], {ONE: None}) is None
    assert isinstance(after.verdict([After("afterok", ONE)], {ONE: None}), Never)
