"""`phalanx lint` as people and programs use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phalanx_client.__main__ import dispatch
from phalanx_client.failure import BAD_INPUT, NOT_FOUND, OK, Failure

SCRIPT = "#!/bin/sh\n#SBATCH -N 2\n#SBATCH --ntasks-per-node=1\npython train.py\n"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A batch script with its program beside it."""
    (tmp_path / "train.py").write_text("Trainer(devices=1, num_nodes=2)\n")
    path = tmp_path / "job.sh"
    path.write_text(SCRIPT)
    return path


def test_findings_are_told_with_their_line_and_what_to_do(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = dispatch(["lint", str(job)])

    told = capsys.readouterr().out
    assert BAD_INPUT == code
    assert told.startswith(f"{job}:4: no-srun: ")
    assert "-> srun python train.py" in told


def test_programs_get_them_as_json(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = dispatch(["lint", str(job), "-o", "json"])
    found = json.loads(capsys.readouterr().out)["findings"]

    assert BAD_INPUT == code
    assert [(str(job), 4, "no-srun")] == [(one["file"], one["line"], one["code"]) for one in found]


def test_what_fits_is_fine(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job.write_text(SCRIPT.replace("python", "srun python"))

    assert (OK, "") == (dispatch(["lint", str(job)]), capsys.readouterr().out)


def test_a_sessions_file_is_read_with_its_program(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = job.with_name("job.yaml")
    session.write_text("size: 3\ncommand: [python, train.py]\n")

    assert BAD_INPUT == dispatch(["lint", str(session)])
    assert "world-size" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "code"), [("none.py", NOT_FOUND), ("notes.txt", BAD_INPUT)])
def test_what_cannot_be_looked_at_is_said(job: Path, name: str, code: int) -> None:
    job.with_name("notes.txt").write_text("nothing\n")

    with pytest.raises(Failure) as failed:
        dispatch(["lint", str(job.with_name(name))])

    assert code == failed.value.exit_code
