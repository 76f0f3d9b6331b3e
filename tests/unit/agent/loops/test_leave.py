"""An agent that leaves: what it takes away, and how it ends."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from phalanx_agent.host import belongings
from phalanx_agent.loops import leave
from phalanx_agent.loops.leave import Leaving
from tests.support.fake_engine import FakeEngine, refusal


class Host:
    """What a leaving agent works on; what it did, in order."""

    def __init__(self, entered_at: float | None = None) -> None:
        self.engine = FakeEngine()
        self.did: list[str] = []
        self.complaints: list[tuple[str, ...]] = []
        self.fails = 0
        self.leaving = Leaving(
            self.engine,
            self._others,
            lambda: entered_at,
            lambda: self.did.append("told"),
            self.complaints.append,
        )

    async def _others(self) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("the disk is busy")
        self.did.append("others")


async def test_all_is_taken_away_before_it_is_told() -> None:
    host = Host(entered_at=7.0)
    await host.leaving.take_all_away()

    assert ["clear", "swarm_leave"] == host.engine.calls
    assert ["others", "told"] == host.did


async def test_a_swarm_that_others_made_is_left_alone() -> None:
    host = Host()
    await host.leaving.take_all_away()

    assert ["clear"] == host.engine.calls


async def test_what_cannot_be_taken_away_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leave, "RETRY_S", (0.0, 0.0))
    host = Host()
    host.fails = 2
    host.engine.failures["clear"].append(refusal(500))
    await host.leaving.take_all_away()

    assert ["others", "told"] == host.did
    assert 3 == len(host.complaints)
    assert ("It cannot leave this host clean: the disk is busy",) == host.complaints[-1]


async def test_who_has_left_ends_when_the_manager_knows_it_no_more() -> None:
    host = Host()
    host.leaving.unknown("it does not know this key", told=False)
    assert not host.leaving.dismissed.done()
    await host.leaving.take_all_away()
    host.leaving.unknown("it does not know this key", told=False)
    host.leaving.unknown("again", told=True)

    assert "it does not know this key" == await host.leaving.dismissed


async def test_the_managers_word_ends_it_at_once() -> None:
    host = Host()
    host.leaving.unknown("cluster lab was removed", told=True)

    async with asyncio.timeout(1):
        assert "cluster lab was removed" == await host.leaving.dismissed


def test_what_sessions_have_left_goes_and_then_who_it_was(tmp_path: Path) -> None:
    state, memory = tmp_path / "state", tmp_path / "memory"
    for folder in (state / "logs", state / "started", state / "runner", memory / "k", memory / "x"):
        folder.mkdir(parents=True)
    for name in ("manager.json", "agent.key", "lock", "somebodys"):
        (state / name).touch()
    belongings.note_swarm(state)

    assert belongings.entered_swarm_at(state) is not None
    belongings.clear_sessions(state, memory)
    belongings.note_left(state)
    assert {
        "manager.json",
        "agent.key",
        "lock",
        "somebodys",
        "swarm-entered",
        "runner",
        "left",
    } == {path.name for path in state.iterdir()}
    belongings.clear_identity(state)
    belongings.clear_identity(state)
    assert {"lock", "somebodys"} == {path.name for path in state.iterdir()}
    assert [] == list(memory.iterdir())


def test_when_its_engine_entered_a_swarm_first_is_noted_once(tmp_path: Path) -> None:
    before = belongings.entered_swarm_at(tmp_path)
    belongings.note_swarm(tmp_path)
    (note,) = tmp_path.iterdir()
    os.utime(note, (7.0, 7.0))
    belongings.note_swarm(tmp_path)

    assert (None, 7.0) == (before, belongings.entered_swarm_at(tmp_path))


def test_that_it_has_left_is_known_to_the_next_process_until_it_joins_anew(tmp_path: Path) -> None:
    before = belongings.has_left(tmp_path)
    belongings.note_left(tmp_path)
    after = belongings.has_left(tmp_path)
    belongings.stays(tmp_path)
    belongings.stays(tmp_path)

    assert (False, True, False) == (before, after, belongings.has_left(tmp_path))
