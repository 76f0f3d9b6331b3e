"""Somebody removes an agent's own files while it runs: its host takes no work and says why."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from phalanx_agent.config import parse
from phalanx_agent.loops.board import Board
from phalanx_agent.loops.sweep import HostFigures

MADE = ("state/logs", "state/uploads", "state/started", "state/runner", "memory/k", "memory/x")
IDENTITY = ("state/manager.json", "state/agent.key")


@pytest.mark.parametrize("lost", [*MADE, *IDENTITY, "state", "memory"])
async def test_what_was_removed_keeps_work_away_until_it_is_there_again(
    tmp_path: Path, lost: str
) -> None:
    for folder in MADE:
        (tmp_path / folder).mkdir(parents=True)
    for file in IDENTITY:
        (tmp_path / file).touch()
    config = replace(
        parse({"name": "host1"}), state_dir=tmp_path / "state", runtime_dir=tmp_path / "memory"
    )
    board = Board("boot", lambda _: True)
    board.engine(msgspec.structs.replace(board.observed().engine, problem=""))
    figures = HostFigures(config, lambda: "203.0.113.9", board)
    figures.tell()
    before = board.observed().engine.problem
    shutil.move(tmp_path / lost, tmp_path / "away")
    figures.tell()
    without = board.observed().engine.problem
    shutil.move(tmp_path / "away", tmp_path / lost)
    figures.tell()

    assert ("", "") == (before, board.observed().engine.problem)
    assert without.startswith(str(tmp_path / lost))
    assert "restart the agent" in without
