"""Batch scripts and command lines: what is given, what wins, and what room it means."""

from __future__ import annotations

import pytest

from phalanx_slurm.argv import from_environment
from phalanx_slurm.options import RENAMED, SBATCH, check, ignored, usual
from phalanx_slurm.request import Room, request
from phalanx_slurm.script import MOST_BYTES, read, wrapped
from phalanx_slurm.wrong import WrongError

LIGHTNING = b"""#!/bin/bash -l

# SLURM SUBMIT SCRIPT
#SBATCH --nodes=4             # This needs to match Trainer(num_nodes=...)
#SBATCH --gres=gpu:8
#SBATCH --ntasks-per-node=8   # This needs to match Trainer(devices=...)
#SBATCH --mem=0
#SBATCH --time=0-02:00:00
#SBATCH --signal=SIGUSR1@90

source activate $1
#SBATCH --nodes=99
srun python3 train.py
"""


def test_the_documented_script_of_lightning_is_read() -> None:
    script = read(LIGHTNING, SBATCH)
    wish = request(script.parts)

    assert ("/bin/bash", "-l") == script.interpreter
    assert Room(4, None, 8, None, 0, 8, "") == wish.room
    assert (7200.0, "USR1@90") == (wish.time_limit_s, wish.warn_signal)


def test_options_stand_before_the_first_command_in_either_form() -> None:
    text = b'#!/bin/sh\n#SBATCH -J "my job" -N2\n#SBATCH\t-p gpu --requeue\n\n##SBATCH -n 9\ntrue\n'

    assert ({"job-name": "my job", "nodes": "2", "partition": "gpu", "requeue": ""},) == read(
        text, SBATCH
    ).parts


def test_the_command_line_wins_over_variables_and_these_over_the_script() -> None:
    script = {"partition": "script", "nodes": "1", "time": "1"}
    environ = from_environment(
        "SBATCH",
        usual("SBATCH"),
        {"SBATCH_PARTITION": "variable", "SBATCH_TIMELIMIT": "2", "SBATCH_ACCOUNT": ""},
        RENAMED,
    )
    given, words = SBATCH.parse(["-p", "line", "job.sh", "-N", "7"])

    assert {"partition": "variable", "time": "2"} == environ
    assert ("job.sh", "-N", "7") == words
    assert {"partition": "line", "nodes": "1", "time": "2"} == {**script, **environ, **given}


@pytest.mark.parametrize(
    ("argv", "given"),
    [
        (["-N4"], {"nodes": "4"}),
        (["-N", "4"], {"nodes": "4"}),
        (["--nodes", "4"], {"nodes": "4"}),
        (["--nodes=4"], {"nodes": "4"}),
        (["--job-na=x"], {"job-name": "x"}),
        (["-HQn2"], {"hold": "", "quiet": "", "ntasks": "2"}),
        (["--exclusive"], {"exclusive": ""}),
        (["--exclusive=user"], {"exclusive": "user"}),
        (["--requeue", "--no-requeue"], {"requeue": "", "no-requeue": ""}),
    ],
)
def test_options_are_read_as_getopt_reads_them(argv: list[str], given: dict[str, str]) -> None:
    assert (given, ()) == SBATCH.parse(argv)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--nonsense"], "unrecognized option '--nonsense'"),
        (["-?"], "invalid option -- '?'"),
        (["--nodes"], "option '--nodes' requires an argument"),
        (["-N"], "option requires an argument -- 'N'"),
        (["--hold=yes"], "option '--hold' doesn't allow an argument"),
        (["--gpus-per"], "ambiguous option '--gpus-per'"),
    ],
)
def test_options_that_there_are_not_are_refused_in_slurms_words(argv: list[str], why: str) -> None:
    with pytest.raises(WrongError, match=why.replace("?", r"\?")):
        SBATCH.parse(argv)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Batch script is empty!"),
        (b" \n", "Batch script is empty!"),
        (b"echo\n", "does not look like a batch script"),
        (b"#!\necho\n", "does not look like a batch script"),
        (b"#!/bin/sh\r\necho\r\n", "DOS line breaks"),
        (b"#!/bin/sh\0", "NUL"),
        (b"#!/bin/sh\n\xff", "not UTF-8"),
        (b"#!/bin/sh\n" + b"#" * MOST_BYTES, "longer than"),
        (b"#!/bin/sh\n#SBATCH --bogus\n", "unrecognized option"),
        (b'#!/bin/sh\n#SBATCH -J "open\n', "line 2: No closing quotation"),
        (b"#!/bin/sh\n#SBATCH word\n", "line 2: 'word' is no option"),
    ],
)
def test_what_is_no_script_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(WrongError, match=why):
        read(data, SBATCH)


def test_a_wrapped_command_is_a_script() -> None:
    assert ("/bin/sh",) == wrapped("hostname; date").interpreter
    assert "\nhostname; date\n" in wrapped("hostname; date").text


@pytest.mark.parametrize(
    ("given", "room"),
    [
        ({}, Room(1, None, None, None, None, 0, "")),
        ({"ntasks": "8"}, Room(1, 8, None, None, None, 0, "")),
        ({"ntasks": "8", "ntasks-per-node": "4"}, Room(2, 8, 4, None, None, 0, "")),
        ({"nodes": "2-4"}, Room(2, None, None, None, None, 0, "")),
        ({"nodes": "4", "ntasks": "2"}, Room(2, 2, None, None, None, 0, "")),
        ({"gpus": "a100:8", "nodes": "2"}, Room(2, None, None, None, None, 4, "a100")),
        ({"gpus-per-task": "1", "ntasks-per-node": "4"}, Room(1, None, 4, None, None, 4, "")),
        (
            {"mem-per-cpu": "1G", "cpus-per-task": "2", "ntasks-per-node": "3"},
            Room(1, None, 3, 2, 6 << 30, 0, ""),
        ),
    ],
)
def test_sizes_give_the_room_of_each_node(given: dict[str, str], room: Room) -> None:
    assert room == request((given,)).room


@pytest.mark.parametrize(
    "given",
    [
        {"nodelist": "host1"},
        {"begin": "tomorrow"},
        {"gpus": "3", "nodes": "2"},
        {"ntasks": "9", "ntasks-per-node": "2", "nodes": "2"},
        {"ntasks": "none"},
        {"open-mode": "upside-down"},
        {"priority": "high"},
        {"container-mounts": "here:there"},
    ],
)
def test_what_cannot_be_kept_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(WrongError):
        request((given,))


def test_what_has_no_effect_is_told_with_its_reason() -> None:
    given = {"account": "a", "mail-type": "END", "mail-user": "b", "nodes": "1"}
    check(given)

    assert (
        "--account: nothing is accounted by it",
        "--mail-type, --mail-user: no mail is sent",
    ) == ignored(given)
