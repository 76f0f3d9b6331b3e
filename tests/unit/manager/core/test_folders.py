"""Which folders the hosts of a session do not share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from phalanx_manager.core import folders
from phalanx_manager.core.model import SessionRow
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.spec import Mount
from tests.support.house import row

CKPT = Mount("/srv/ckpt", "/ckpt", read_only=False)
SAVES: dict[str, Any] = {"warn_signal": "USR1@90", "time_limit_s": 600.0}


def told(
    seats: str, *places: Mapping[str, str], mounts: tuple[Mount, ...] = (CKPT,), **spec: Any
) -> tuple[str, ...]:
    """What is said of a session with such mounts, by what the agent of each kernel has told."""
    made: SessionRow = row(seats, KernelState.RUNNING, mounts=mounts, **spec)
    kernels = tuple(
        replace(kernel, folders=place) for kernel, place in zip(made.kernels, places, strict=True)
    )
    return folders.unshared(replace(made, kernels=kernels))


def test_a_folder_that_two_hosts_have_for_themselves_is_told_with_both() -> None:
    (said,) = told("ab", {"/ckpt": "x:1:2"}, {"/ckpt": "y:1:2"}, **SAVES)

    assert said.startswith(
        "folder /ckpt is not shared: a and b each have a folder /srv/ckpt of their own"
    )


def test_one_of_each_folder_is_named_and_many_are_counted() -> None:
    places = [{"/ckpt": text} for text in "112345"]
    (said,) = told("abcdef", *places, requeue=True)

    assert "a, c, d, e and 1 more each have" in said


def test_a_folder_that_is_one_or_that_somebody_cannot_tell_of_is_fine() -> None:
    one = {"/ckpt": "x:1:2"}

    assert () == told("ab", one, one, **SAVES)
    assert () == told("ab", one, {}, **SAVES)
    assert () == told("aa", one, one, **SAVES)


def test_a_session_that_does_not_go_on_from_what_it_saved_may_have_scratch() -> None:
    assert () == told("ab", {"/ckpt": "x:1:2"}, {"/ckpt": "y:1:2"})


def test_what_nobody_may_write_or_has_mounted_is_none_of_it() -> None:
    told_of = ({"/ckpt": "x"}, {"/ckpt": "y"})
    data = Mount("/srv/ckpt", "/ckpt")

    assert () == told("ab", *told_of, mounts=(data,), **SAVES)
    assert () == told("ab", *told_of, mounts=(), **SAVES)
