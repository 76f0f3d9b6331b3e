"""The page of the runner's promises names tests, which must be there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_proves_a_promise_exists() -> None:
    page = (ROOT / "docs" / "RUNNER.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    files = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for text in files for name in re.findall(r"def (test_\w+)\(", text)}

    assert len(named) > 20
    assert set() == named - there


def test_every_file_of_tests_that_is_named_exists() -> None:
    page = (ROOT / "docs" / "RUNNER.md").read_text()

    assert [] == [path for path in re.findall(r"`(tests/\S+)`", page) if not (ROOT / path).exists()]
