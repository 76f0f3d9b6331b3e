"""What a container may take of what its host has one of. Needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx_agent.host.confine import confine
from phalanx_agent.host.terminals import MOST, bound

OWN = "mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts /dev/pts"


@pytest.fixture
def container() -> Iterator[int]:
    """A process with terminals of its own, as in a container."""
    argv = ["unshare", "--mount", "sh", "-c", f"{OWN} && echo ready && exec sleep 60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def options(pid: int) -> list[str]:
    """How the newest of a process's terminal file systems is mounted."""
    mounts = Path(f"/proc/{pid}/mounts").read_text(encoding="utf-8").splitlines()
    return sorted([line.split()[3] for line in mounts if line.startswith("devpts ")][-1].split(","))


@pytest.mark.real
def test_a_containers_terminals_are_bounded_and_otherwise_as_they_were(container: int) -> None:
    before = options(container)
    bound(container)
    once = options(container)
    bound(container)

    assert sorted([*before, f"max={MOST}"]) == once
    assert once == options(container)


@pytest.mark.real
def test_the_hosts_own_terminals_are_not_bounded() -> None:
    before = options(os.getpid())

    bound(os.getpid())

    assert before == options(os.getpid())


@pytest.mark.real
def test_a_number_that_is_another_process_by_now_changes_nothing(container: int) -> None:
    before = options(container)

    confine("f" * 64, container, "10.212.0.0/20")
    confine("f" * 64, 1 << 30, "10.212.0.0/20")

    assert before == options(container)
