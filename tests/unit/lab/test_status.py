from __future__ import annotations

import os
from pathlib import Path

from phalanx_lab import status
from phalanx_lab.status import Component, Lock, Status


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    told = Status(supervisor=7, phase="up", components={"engine-1": Component(pid=9, restarts=2)})

    status.write(str(tmp_path), told)

    assert status.read(str(tmp_path)) == told
    assert status.read("/nonexistent") is None


def test_a_claim_is_held_once_and_names_its_holder(tmp_path: Path) -> None:
    held = Lock(str(tmp_path), "lab", "verb")
    other = Lock(str(tmp_path), "lab", "verb")

    assert held.take()
    assert not other.take()
    assert other.holder() == os.getpid()


def test_a_claim_let_go_leaves_no_file(tmp_path: Path) -> None:
    held = Lock(str(tmp_path), "lab", "verb")
    held.take()
    held.drop(remove=True)

    assert held.holder() == 0
    assert os.listdir(tmp_path) == []


def test_two_labs_do_not_claim_each_other(tmp_path: Path) -> None:
    one, two = Lock(str(tmp_path), "one", "verb"), Lock(str(tmp_path), "two", "verb")

    assert one.take()
    assert two.take()
    one.drop()
    two.drop()
