from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.runner import fuzz


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fuzz.compile_fuzz(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_mutated_line_makes_a_parser_read_or_write_where_it_must_not(
    program: Path, seed: int
) -> None:
    done = fuzz.throw(program, seed)

    assert (0, "") == (done.returncode, done.stderr)
    assert int(done.stdout) > 1000  # the mutations leave enough alive to get past the first brace


def test_no_mutated_event_makes_the_agents_parser_raise() -> None:
    assert fuzz.throw_at_agent(1) > 100
