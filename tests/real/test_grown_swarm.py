"""A swarm that was made of two hosts and has grown survives the loss of any of three."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from phalanx_lab import engine
from phalanx_lab.lab import Host, Lab
from tests.real.conftest import LAB
from tests.real.failing import Site
from tests.real.ground import (
    ACROSS,
    BASE,
    ROOT,
    SMALL,
    Done,
    Ground,
    assert_same_traces,
    await_true,
    settled_traces,
)
from tests.real.own_agents import Agent, in_swarm, token

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(300)]

NAME = "growing"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three hosts whose agents the test runs."""
    patch = pytest.MonkeyPatch()
    config = tmp_path_factory.mktemp("growing") / "config.toml"
    patch.setenv("PHALANX_CONFIG", str(config))
    patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        with Lab.up(f"{LAB}{os.getpid()}g", 3, bare=("host1", "host2", "host3")) as lab:
            lab.load("base")
            yield Site(Ground(lab, config))
    finally:
        patch.undo()


def test_a_swarm_of_two_hosts_that_grows_survives_the_loss_of_its_first(site: Site) -> None:
    ground, lab = site.ground, site.ground.lab
    before, agents = settled_traces(ground), list[Agent]()
    site.ask("POST", "/v1/clusters", {"name": NAME}).ok()
    try:
        for host in lab.hosts[:2]:
            agents.append(joined(site, host, len(agents) + 1))
        across(ground, 2).ok()
        of_two = managers(lab.hosts[0])
        agents.append(joined(site, lab.hosts[2], 3))
        across(ground, 3).ok()
        await_true("all three are managers", lambda: len(managers(lab.hosts[0])) == 3, 60)
        assert 1 == len(of_two)

        lab.fault("cut", lab.hosts[0].name)
        await_true("the first is away", lambda: ready(site) == ["host2", "host3"], 60)
        without_the_first = across(ground, 2)
        lab.fault("heal", lab.hosts[0].name)
        without_the_first.ok()
        wait_for(site, 3)

        ground.phalanx("cluster", "rm", NAME).ok()
        await_true("all have left", lambda: all(one.look() == 4 for one in agents), 90)
    finally:
        for agent in agents:
            agent.end()
    assert ["inactive"] * 3 == [in_swarm(host) for host in lab.hosts]
    assert_same_traces(before, ground)


def joined(site: Site, host: Host, count: int) -> Agent:
    """A host's agent, once the cluster has so many."""
    agent = Agent(site.ground.lab, host, "--join", token(site, host, NAME))
    wait_for(site, count)
    return agent


def wait_for(site: Site, count: int) -> None:
    """Wait until the cluster has so many hosts that are ready."""
    wait = f"/v1/clusters/{NAME}/wait?timeout_s=60&nodes={count}"
    assert count == len(site.ask("GET", wait).ok()["ready"])


def ready(site: Site) -> list[str]:
    """The hosts that take work."""
    nodes = site.ask("GET", "/v1/nodes").ok()["nodes"]
    return sorted(node["name"] for node in nodes if node["state"] == "ready")


def across(ground: Ground, hosts: int) -> Done:
    """Run a session with a container on each of so many hosts."""
    options = (*SMALL, *ACROSS, "-i", BASE, "--cluster", NAME, "-N", str(hosts))
    return ground.phalanx("run", *options, "--", "true", timeout=120)


def managers(host: Host) -> list[str]:
    """The hosts whose engines manage the swarm and are there, as one of them sees it."""
    return sorted(
        node["Description"]["Hostname"]
        for node in engine.ask(host.engine_socket, "GET", "/nodes")[1]
        if (node.get("ManagerStatus") or {}).get("Reachability") == "reachable"
    )
