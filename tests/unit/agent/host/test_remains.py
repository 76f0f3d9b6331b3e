"""Processes and cgroups of a container that its engine does not know of."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx_agent.host import remains

OURS, ANOTHERS = "a" * 64, "b" * 64


@contextlib.contextmanager
def program(name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is called so, until it is killed."""
    argv = [name, "-c", "read forever", name, *words]
    with subprocess.Popen(argv, executable="/bin/sh", stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of cgroups, which are folders that go when nothing is below them."""
    monkeypatch.setattr(remains, "CGROUPS", tmp_path)
    for place in (
        f"memory/lab/{OURS}",
        f"memory/lab/{ANOTHERS}",
        f"system.slice/docker-{OURS}.scope",
    ):
        (tmp_path / place / "inner").mkdir(parents=True)
    return tmp_path


async def test_the_shim_of_a_container_is_ended_and_no_other_ones(cgroups: Path) -> None:
    with (
        program("/usr/bin/containerd-shim-runc-v2", "-id", OURS) as shim,
        program("runc", "create", OURS) as helper,
        program("/usr/bin/containerd-shim-runc-v2", "-id", ANOTHERS) as another,
        program("docker", "logs", OURS) as client,
    ):
        await remains.end(OURS)

        assert [-9, -9, None, None] == [
            shim.wait(10),
            helper.wait(10),
            another.poll(),
            client.poll(),
        ]


async def test_cgroups_of_a_container_are_removed_and_no_other_ones(cgroups: Path) -> None:
    await remains.end(OURS)

    left = sorted(str(place.relative_to(cgroups)) for place in cgroups.rglob("*"))
    assert [
        "memory",
        "memory/lab",
        f"memory/lab/{ANOTHERS}",
        f"memory/lab/{ANOTHERS}/inner",
        "system.slice",
    ] == left


async def test_what_does_not_end_is_named(cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remains, "WITHIN_S", 0.0)
    with (
        program("containerd-shim-runc-v2", "-id", OURS) as shim,
        pytest.raises(remains.RemainsStay, match=f"Process {shim.pid} of it does not end"),
    ):
        await remains.end(OURS)
