"""Agents of a removed cluster are killed, or freeze, wherever they take something away."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from phalanx_lab.lab import Lab
from tests.real.conftest import LAB
from tests.real.failing import Site
from tests.real.ground import (
    ACROSS,
    BASE,
    ROOT,
    SMALL,
    Ground,
    assert_same_traces,
    await_true,
    settled_traces,
)
from tests.real.own_agents import Agent, in_swarm, token
from tests.support.failpoints import MODES, Mode, points

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

LEAVING = ("docker.clear", "docker.swarm_leave")
DISMISSED = 4


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two hosts whose agents the tests run: points of failure are armed as in other labs."""
    patch = pytest.MonkeyPatch()
    config = tmp_path_factory.mktemp("leaving") / "config.toml"
    patch.setenv("PHALANX_CONFIG", str(config))
    patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        with Lab.up(f"{LAB}{os.getpid()}l", 2, bare=("host1", "host2")) as lab:
            lab.load("base")
            yield Site(Ground(lab, config))
    finally:
        patch.undo()


@pytest.mark.parametrize("mode", MODES)
def test_agents_that_die_or_freeze_wherever_they_leave_leave_all_the_same(
    site: Site, mode: Mode
) -> None:
    ground, lab = site.ground, site.ground.lab
    before, name = settled_traces(ground), f"left-at-{mode}"
    armed = {
        f"agent-{host.index}": [point for point in points(LEAVING) if point.mode == mode]
        for host in lab.hosts
    }
    site.ask("POST", "/v1/clusters", {"name": name}).ok()
    agents = [Agent(lab, host, "--join", token(site, host, name)) for host in lab.hosts]
    try:
        wait = f"/v1/clusters/{name}/wait?timeout_s=60&nodes={len(lab.hosts)}"
        assert [host.name for host in lab.hosts] == site.ask("GET", wait).ok()["ready"]
        options = (*SMALL, *ACROSS, "-i", BASE, "--cluster", name, "-N", "2", "-J", name)
        ground.phalanx("create", *options, timeout=120).ok()
        for component, places in armed.items():
            for point in places:
                point.arm(site.folder(component))
        ground.phalanx("cluster", "rm", name).ok()

        def have_ended() -> bool:
            return [DISMISSED] * 2 == [agent.look() for agent in agents]

        await_true("both agents have left", have_ended, 60)
    finally:
        for agent in agents:
            agent.end()
    assert [] == site.left(armed)
    assert ["inactive"] * 2 == [in_swarm(host) for host in lab.hosts]
    assert "deleted" == ground.http("GET", f"/v1/clusters/{name}").ok()["state"]
    assert_same_traces(before, ground)
