"""A host's engine begins with an empty folder, while what it has started before still runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx_lab import processes
from phalanx_lab.lab import Host, Lab
from tests.real.conftest import LAB
from tests.real.ground import BASE, SMALL, Ground, assert_same_traces, call, settled_traces

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

WITHIN_S = 60.0


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    """One host, on which nothing has run yet."""
    config = tmp_path / "config.toml"
    monkeypatch.setenv("PHALANX_CONFIG", str(config))
    with Lab.up(f"{LAB}{os.getpid()}e", 1) as lab:
        lab.load("base")
        yield Ground(lab, config)


def shim_of(container: str) -> int:
    """The engine's helper for a container."""
    return next(
        pid
        for pid in processes.pids()
        if container in (argv := processes.command(pid)) and "containerd-shim" in argv[0]
    )


@pytest.mark.parametrize("where", ["on the host", "from outside of it"])
def test_an_engine_that_was_emptied_leaves_nothing_of_what_it_has_lost(
    ground: Ground, where: str
) -> None:
    lab, (host,) = ground.lab, ground.lab.hosts
    before = settled_traces(ground)
    ground.phalanx("run", "--detach", "-J", "lost", *SMALL, "-i", BASE, "--", "sleep", "1000").ok()
    ground.await_state("lost", "running")
    container = ground.docker(host, "ps", "-q", "--no-trunc").ok().strip()
    shim, supervisor = shim_of(container), lab.pid("supervisor")
    os.kill(supervisor, signal.SIGSTOP)  # the engine begins when its folder is empty
    try:
        for component in ("agent-1", "engine-1"):
            died = lab.pid(component)
            lab.fault("kill", component)
            assert processes.await_end(died, within=10)
        empty(host, shim if where == "on the host" else 0)
        runs_on = processes.alive(shim)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    ended = ground.await_state("lost", "failed")

    assert runs_on
    assert [None] == [kernel["exit_code"] for kernel in ended["kernels"]]
    assert_same_traces(before, ground, within=WITHIN_S)


def empty(host: Host, beside: int) -> None:
    """Remove all that an engine has, as root of the host beside a process there sees it, to whom
    layers are mounted, or as the machine's, to whom none are.
    """
    folder = f"{host.state_dir}/engine"
    removing = ("find", folder, "-mindepth", "1", "-delete")
    if beside:
        call("nsenter", f"--mount=/proc/{beside}/ns/mnt", *removing).failed(1)
    else:
        call(*removing).ok()
        assert [] == os.listdir(folder)
