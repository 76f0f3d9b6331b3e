"""What a daemon writes down, when nobody reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from phalanx_wire.diary import MOST_LINES, Diary


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """The end to read of a pipe, and the end to write."""
    reader, writer = os.pipe()
    with open(reader) as readable, open(writer, "w") as writable:
        yield readable, writable


def test_what_is_written_down_is_there_in_its_order(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file, Diary(file) as diary:
        for number in range(100):
            diary.info(f"line {number}")

    assert [f"line {n}" for n in range(100)] == (tmp_path / "log").read_text().splitlines()


def test_a_reader_that_stands_still_holds_nobody_up_and_is_told_what_it_missed(
    pipe: tuple[TextIO, TextIO],
) -> None:
    readable, writable = pipe
    line, many = "x" * 4095, MOST_LINES + 100  # a pipe has room for sixteen of them
    with Diary(writable) as diary:
        for _ in range(many):
            diary.info(line)
        begun = [readable.readline() for _ in range(1000)]  # there is room again
        diary.info("the last")
        told = [*begun, *iter(readable.readline, "the last\n")]
    missed = [int(text.rpartition("=")[2]) for text in told if "diary.left-out" in text]

    assert sum(missed) > 0
    assert many == sum(missed) + told.count(f"{line}\n")


@pytest.mark.parametrize("output", ["nobody reads it", "there is none"])
def test_an_output_that_is_gone_holds_nobody_up(pipe: tuple[TextIO, TextIO], output: str) -> None:
    readable, writable = pipe
    readable.close()
    with Diary(writable if output == "nobody reads it" else None) as diary:
        diary.warning("one")
        diary.error("two")

    assert not diary._writer.is_alive()
