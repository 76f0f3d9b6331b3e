"""A session over two hosts works with a newer generation of engines too."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from phalanx_lab import engine_root
from phalanx_lab.lab import Lab
from tests.real.ground import ACROSS, PROGRAMS, Ground, assert_same_traces, ranks, settled_traces

pytestmark = pytest.mark.real

LAB = f"real{os.getpid()}n"


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Two hosts with Docker from Debian unstable, and the base image."""
    config = tmp_path_factory.mktemp("newer") / "config.toml"
    root = engine_root.build(engine_root.SUITE, print)
    patch = pytest.MonkeyPatch()
    patch.setenv("PHALANX_CONFIG", str(config))
    try:
        with Lab.up(LAB, 2, engine_root=root) as lab:
            lab.load("base")
            yield Ground(lab, config)
    finally:
        patch.undo()


def test_a_session_over_two_newer_engines_runs_and_leaves_nothing(newer: Ground) -> None:
    versions = {
        newer.docker(host, "version", "--format", "{{.Server.Version}}").ok().strip()
        for host in newer.lab.hosts
    }
    newer.run("-N", "2", *ACROSS, "--", "true", timeout=120).ok()  # the first makes the swarm
    before = settled_traces(newer)

    told = newer.run(
        "-N", "4", "--mode", "multi-node", "--upload", str(PROGRAMS), "-u", "1000",
        "--", "sh", "-c", "echo $LOCAL_RANK of $LOCAL_WORLD_SIZE; sh who.sh; sleep 1",
    ).ok()  # fmt: skip
    single = newer.run("-N", "2", "--run-on", "main", "--", "sh", "-c", "ssh sub1 exit 9")

    everybody = [
        f"{host} {rank} of 4" for rank, host in enumerate(("main1", "sub1", "sub2", "sub3"))
    ]
    assert {rank: [f"{rank % 2} of 2", *everybody] for rank in range(4)} == ranks(told)
    assert 9 == single.code
    assert all(int(version.split(".")[0]) >= 26 for version in versions), versions
    assert_same_traces(before, newer)
