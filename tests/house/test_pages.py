"""The pages that name tests: the tests are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("RUNNER.md", "BAD_INPUTS.md", "FAULTS.md")
ROW = re.compile(r"^\| (?P<number>\d+) \|.*\| (?P<tests>[^|]*)\|$", re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_every_test_that_proves_a_promise_exists(name: str) -> None:
    page = (ROOT / "docs" / name).read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    files = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for text in files for name in re.findall(r"def (test_\w+)\(", text)}

    assert len(named) > 15
    assert set() == named - there


@pytest.mark.parametrize("name", PAGES)
def test_every_file_of_tests_that_is_named_exists(name: str) -> None:
    page = (ROOT / "docs" / name).read_text()

    assert [] == [path for path in re.findall(r"`(tests/\S+)`", page) if not (ROOT / path).exists()]


def test_every_bad_input_has_its_test_or_can_not_be() -> None:
    rows = list(ROW.finditer((ROOT / "docs" / "BAD_INPUTS.md").read_text()))
    without = [row[0] for row in rows if "`test_" not in row["tests"]]

    assert len(rows) >= 90
    assert [str(number + 1) for number in range(len(rows))] == [row["number"] for row in rows]
    assert [] == [line for line in without if "*no such thing*" not in line]
