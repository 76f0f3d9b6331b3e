from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from phalanx_runner.build import SRC

FUZZ = Path(__file__).with_name("parser_fuzz.c")
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-fno-sanitize-recover=all"]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_no_mutated_line_makes_a_parser_read_or_write_where_it_must_not(
    tmp_path: Path, seed: str
) -> None:
    program = tmp_path / "fuzz"
    files = [str(FUZZ), str(SRC / "command.c"), str(SRC / "conf.c")]
    subprocess.run(
        ["gcc", *FLAGS, "-fsanitize=address,undefined", f"-I{SRC}", "-o", str(program), *files],
        check=True,
    )

    done = subprocess.run(
        [str(program), seed, "100000"], capture_output=True, text=True, timeout=60, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert int(done.stdout) > 1000  # the mutations leave enough alive to get past the first brace
