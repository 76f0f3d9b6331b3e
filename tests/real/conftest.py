"""One lab of three hosts for all tests on real engines, and a leak check after each of them."""

from __future__ import annotations

import os
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from phalanx_lab import engine
from phalanx_lab.lab import Host, Lab, all_labs
from tests.real.crew import NETWORK, SUBNET
from tests.real.failing import Site, failing_lab
from tests.real.ground import ACROSS, Ground, assert_same_traces, await_true, settled_traces
from tests.real.outside import Outside
from tests.real.upkeep import Upkeep

LAB = "real"
ON_HOSTS: dict[str, str | float | bool] = {"host_network": True, "host_ports": "61000-61039"}
IMAGES = ("base", "older", "musl", "busybox", "empty", "hostile")


def manages(host: Host) -> bool:
    """Tell whether a host's engine takes part in deciding on its swarm: it listens from then on."""
    status, info = engine.ask(host.engine_socket, "GET", "/info")
    return status == 200 and bool(info["Swarm"]["ControlAvailable"])


def clear_away_the_dead() -> None:
    """Take down labs of test runs that were killed."""
    for found in all_labs():
        pid = found.plan.name.removeprefix(LAB).rstrip(string.ascii_lowercase)
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            found.down()


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Three hosts with the base image, and a swarm that has carried a session before."""
    config = tmp_path_factory.mktemp("client") / "config.toml"
    patch = pytest.MonkeyPatch()
    patch.setenv("PHALANX_CONFIG", str(config))
    try:
        clear_away_the_dead()
        with Lab.up(f"{LAB}{os.getpid()}", 3, agent=ON_HOSTS) as lab:
            ground = Ground(lab, config)
            lab.load("base")
            ground.run("-N", "3", *ACROSS, "--", "true", timeout=180).ok()
            await_true("each host is a manager of the swarm", lambda: all(map(manages, lab.hosts)))
            yield ground
    finally:
        patch.undo()


@pytest.fixture(scope="session")
def runner_engine() -> Iterator[str]:
    """The socket of an engine with every kind of image, and a network with fixed addresses."""
    with Lab.up(f"{LAB}{os.getpid()}r", 1, engines_only=True) as lab:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lab.load, IMAGES))
        socket = lab.hosts[0].engine_socket
        engine.ask(
            socket,
            "POST",
            "/networks/create",
            {"Name": NETWORK, "IPAM": {"Config": [{"Subnet": SUBNET}]}},
        )
        yield socket


@pytest.fixture(scope="session")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two hosts whose daemons have points of failure; in the end all is as it was at first."""
    config = tmp_path_factory.mktemp("failing") / "config.toml"
    with failing_lab(f"{LAB}{os.getpid()}p", 2, config) as site:
        before = settled_traces(site.ground)
        yield site
        assert_same_traces(before, site.ground)


@pytest.fixture(scope="session")
def upkeep(ground: Ground) -> Iterator[Upkeep]:
    """Looks after the ground's daemons while the tests are at it."""
    kept = Upkeep(ground)
    kept.look()
    yield kept
    kept.close()


@pytest.fixture(scope="module")
def outside(
    ground: Ground, upkeep: Upkeep, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outside]:
    """A session over two hosts, as a user's ssh finds it from outside."""
    with ground.created("-N", "2", *ACROSS, "-c", "1") as name:
        yield Outside(ground, name, tmp_path_factory.mktemp("outside"))


@pytest.fixture
def clean(ground: Ground, upkeep: Upkeep) -> Iterator[Ground]:
    """The ground; after the test nothing may be left of what it did."""
    upkeep.look()
    sessions, before = ground.sessions(), settled_traces(ground)
    yield ground
    for session in ground.sessions() - sessions:
        ground.phalanx("stop", "--grace", "1s", session)
    assert_same_traces(before, ground)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """An empty folder for a test's upload."""
    folder = tmp_path / "upload"
    folder.mkdir()
    return folder
