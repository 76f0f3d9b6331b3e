from __future__ import annotations

import argparse
import os

import pytest

from phalanx_lab import __main__ as command_line
from phalanx_lab import processes
from phalanx_lab.unavailable import Unavailable


@pytest.mark.parametrize(
    ("text", "number"),
    [("1GiB", 2**30), ("512m", 2**29), ("1.5g", 3 * 2**29), ("16777216", 2**24)],
)
def test_sizes_are_read_with_their_units(text: str, number: int) -> None:
    assert number == command_line.size(text)


@pytest.mark.parametrize("text", ["", "x", "-4g", "3", "4 apples", "inf", "nan"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        command_line.size(text)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["phalanx-lab", *words])
    return command_line.main()


def test_a_bad_name_is_a_matter_of_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "up", "--name", "A/B") == command_line.USAGE
    assert "1 to 12 of a-z" in capsys.readouterr().err


def test_a_lab_that_is_not_there_says_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setenv("PHALANX_LAB_RUN", str(tmp_path))

    assert run(monkeypatch, "fault", "kill", "engine-1") == command_line.UNFIT
    assert "phalanx lab up" in capsys.readouterr().err


def test_no_labs_are_an_empty_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setenv("PHALANX_LAB_RUN", f"{tmp_path}/none")

    assert run(monkeypatch, "ls") == 0
    assert capsys.readouterr().out.splitlines()[1:] == []


def test_a_process_is_alive_until_it_is_a_zombie() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)

    assert processes.state(child) == "Z"
    assert not processes.alive(child)
    assert processes.orphans_to_reap(set()) == [child]
    os.waitpid(child, 0)
    assert processes.alive(os.getpid())


def test_an_error_of_the_world_says_what_and_what_to_do() -> None:
    assert str(Unavailable("dockerd", "is gone", "Start it.")) == "dockerd: is gone. Start it."
