"""Amounts, times, arrays, dependencies, signals, variables: as SLURM writes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from phalanx_slurm import amounts, arrays, patterns, states, times
from phalanx_slurm.arrays import Array, JobRef, array, job_ref
from phalanx_slurm.depend import Dependency, Wait, dependency
from phalanx_slurm.request import Export, export, image_name, signal
from phalanx_slurm.wrong import WrongError

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("1:30:00", 5400),
        ("0-02:00:00", 7200),
        ("2-0", 172_800),
        ("1-12:30", 131_400),
        ("UNLIMITED", None),
        ("infinite", None),
        ("0", None),
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(text: str, seconds: float | None) -> None:
    assert seconds == times.limit_s(text)


@pytest.mark.parametrize(
    ("seconds", "in_accounting", "in_the_queue"),
    [
        (7, "00:00:07", "0:07"),
        (3_907, "01:05:07", "1:05:07"),
        (176_707, "2-01:05:07", "2-01:05:07"),
        (-5, "00:00:00", "0:00"),
    ],
)
def test_a_length_of_time_is_spelled(seconds: float, in_accounting: str, in_the_queue: str) -> None:
    assert (in_accounting, in_the_queue) == (times.elapsed(seconds), times.shown(seconds))


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("now", "2030-01-31T12:00:00"),
        ("now-2hours", "2030-01-31T10:00:00"),
        ("now+1day", "2030-02-01T12:00:00"),
        ("today", "2030-01-31T00:00:00"),
        ("2030-01-30", "2030-01-30T00:00:00"),
        ("2030-01-30T06:07", "2030-01-30T06:07:00"),
        ("1970-01-01-00:00:01", "1970-01-01T00:00:01"),
        ("9:05", "2030-01-31T09:05:00"),
    ],
)
def test_a_point_in_time_is_read(text: str, at: str) -> None:
    assert at == times.stamp(times.moment(text, NOW), "")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("100", 100 << 20), ("1GB", 1 << 30), ("4g", 4 << 30), ("10K", 10 << 10)],
)
def test_memory_is_read_in_mebibytes_unless_it_says_otherwise(text: str, size: int) -> None:
    assert size == amounts.mem_bytes(text, "mem")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gpu", ("", 1)),
        ("gpu:8", ("", 8)),
        ("gpu:A100:8", ("a100", 8)),
        ("gpu:a100", ("a100", 1)),
        ("gpu:2(S:0-1)", ("", 2)),
        ("none", ("", 0)),
    ],
)
def test_devices_are_read(text: str, found: tuple[str, int]) -> None:
    assert found == amounts.gres(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0-9%2", Array(tuple(range(10)), 2)),
        ("1,3,5-7", Array((1, 3, 5, 6, 7))),
        ("0-15:4", Array((0, 4, 8, 12), 0, 4)),
        ("0-9%2,12", None),
        ("5-1", None),
        ("", None),
        ("1-9999999", None),
        ("a", None),
        ("0-3%0", None),
    ],
)
def test_an_array_is_read_or_refused(text: str, found: Array | None) -> None:
    if found is None:
        with pytest.raises(WrongError, match="Invalid job array specification"):
            array(text)
    else:
        assert found == array(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("42", JobRef(42)),
        ("42_7", JobRef(42, frozenset({7}))),
        ("42_[1-3,5%2]", JobRef(42, frozenset({1, 2, 3, 5}))),
        ("42_*", JobRef(42)),
        ("42.batch", JobRef(42)),
        ("42+1", JobRef(42)),
    ],
)
def test_a_job_is_named(text: str, found: JobRef) -> None:
    assert found == job_ref(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("afterok:1:2", Dependency((Wait("afterok", (JobRef(1), JobRef(2))),))),
        (
            "afterany:1,aftercorr:3_4",
            Dependency(
                (
                    Wait("afterany", (JobRef(1),)),
                    Wait("aftercorr", (JobRef(3, frozenset({4})),)),
                )
            ),
        ),
        ("singleton", Dependency((), singleton=True)),
    ],
)
def test_a_dependency_is_read(text: str, found: Dependency) -> None:
    assert found == dependency(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("USR1@90", "USR1@90"),
        ("SIGUSR1@90", "USR1@90"),
        ("B:USR1", "B:USR1@60"),
        ("B:10@30", "B:10@30"),
        ("usr2@5", "USR2@5"),
    ],
)
def test_a_warning_signal_is_read(text: str, found: str) -> None:
    assert found == signal(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, Export()),
        ("ALL", Export()),
        ("NONE", Export(everything=False)),
        ("ALL,A=1", Export(values={"A": "1"})),
        ("A,B=2", Export(everything=False, names=("A",), values={"B": "2"})),
        ("A='x,y'", Export(everything=False, values={"A": "x,y"})),
    ],
)
def test_the_exported_variables_are_read(text: str | None, found: Export) -> None:
    assert found == export(text)


@pytest.mark.parametrize(
    ("pattern", "known", "word"),
    [
        ("slurm-%j.out", {}, 'slurm-"$SLURM_JOB_ID".out'),
        ("%x-%A", {"x": "a b"}, '\'a b\'-"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}"'),
        ("%4j", {}, '"$(printf %04d "$SLURM_JOB_ID")"'),
        ("%t%%%N", {}, '0%"$SLURMD_NODENAME"'),
        ("a;rm -rf $HOME", {}, "'a;rm -rf $HOME'"),
        (r"\%j", {}, "%j"),
    ],
)  # fmt: skip
def test_an_output_file_is_named_for_a_shell(
    pattern: str, known: dict[str, str], word: str
) -> None:
    assert word == patterns.shell_word(pattern, known)


def test_an_output_file_is_named_once_its_job_is_known() -> None:
    assert "42-007%" == patterns.expanded("%j-%3a%%", {"j": "42", "a": "7"})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ubuntu", "ubuntu"),
        ("docker://ubuntu:22.04", "ubuntu:22.04"),
        ("nvcr.io#nvidia/pytorch:25.01-py3", "nvcr.io/nvidia/pytorch:25.01-py3"),
        ("docker://$oauthtoken@nvcr.io#nvidia/cuda:12", "nvcr.io/nvidia/cuda:12"),
    ],
)
def test_an_image_is_read_as_enroot_writes_it(text: str, name: str) -> None:
    assert name == image_name(text)


@pytest.mark.parametrize(
    "read",
    [
        lambda: times.limit_s("soon"),
        lambda: times.limit_s("1:2:3:4"),
        lambda: times.moment("yesterdayish", NOW),
        lambda: amounts.mem_bytes("many", "mem"),
        lambda: amounts.gres("shard:4"),
        lambda: amounts.gpus("x:y", "gpus"),
        lambda: amounts.nodes("0"),
        lambda: amounts.nodes("4-2"),
        lambda: amounts.count("-1", "ntasks"),
        lambda: job_ref("nonsense"),
        lambda: job_ref("0"),
        lambda: dependency("afterok"),
        lambda: dependency("afterok:1?afterok:2"),
        lambda: dependency("after:1"),
        lambda: signal("@@"),
        lambda: signal("R:USR1@5"),
        lambda: export("1A=2"),
        lambda: image_name("./image.sqsh"),
        lambda: states.named("SLEEPING"),
        lambda: array(f"0-{arrays.MOST_TASKS}"),
    ],
)
def test_what_is_wrong_is_refused_with_a_sentence(read: Callable[[], Any]) -> None:
    with pytest.raises(WrongError) as wrong:
        read()

    assert len(str(wrong.value)) > 10
