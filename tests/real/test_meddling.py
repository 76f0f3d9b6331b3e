"""Somebody meddles with a host behind its agent's back: no rank runs twice, and it is told why."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from phalanx_lab.lab import Host
from tests.real.failing import ENDED, ON_BOTH, WITNESS, Site, containers
from tests.real.ground import Ground, await_true

pytestmark = pytest.mark.real


def begin(site: Site, ranks: int = 2) -> tuple[str, Host, str]:
    """A session of some ranks that goes on; the host of one and its container's name there."""
    share = {"source": str(site.share), "target": "/share", "read_only": False}
    session = site.submit(
        command=["sh", "-c", f"{WITNESS} sleep 1000"],
        env_profile="default",
        mounts=[share],
        resources={"cpu": 0.5, "mem": "64M"},
        **(ON_BOTH if ranks == 2 else {"size": ranks}),
    )
    site.await_state(session, "running")
    await_true("all commands have begun", lambda: site.times_run(session) == ranks)
    (host, container), *_ = containers(site.ground, session)
    return session, host, container


@pytest.mark.parametrize("then", ["kill", "cont"])
def test_a_container_that_somebody_starts_a_second_time_does_not_run_its_command_again(
    clean: Ground, then: str
) -> None:
    site = Site(clean)
    session, host, container = begin(site)
    agent = f"agent-{host.index}"
    clean.lab.fault("stop", agent)
    try:
        clean.docker(host, "restart", "-t", "0", container).ok()
    finally:
        clean.lab.fault("kill" if then == "kill" else "cont", agent)
    view = site.await_state(session, *ENDED)

    assert ("failed", 2) == (view["state"], site.times_run(session))
    assert "a second time" in view["reason"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_host_that_has_lost_all_it_knew_of_a_running_rank_does_not_run_it_again(
    clean: Ground, ranks: int
) -> None:
    site = Site(clean)
    session, host, container = begin(site, ranks)
    agent = f"agent-{host.index}"
    clean.lab.fault("stop", agent)
    try:
        clean.docker(host, "rm", "-f", container).ok()
        shutil.rmtree(Path(host.state_dir, "agent", "started"))
        shutil.rmtree(Path(clean.lab.plan.agent_memory(host.index), "k"))
    finally:
        clean.lab.fault("kill", agent)
    view = site.await_state(session, *ENDED)

    assert ("failed", ranks) == (view["state"], site.times_run(session))
    assert "not known" in view["reason"]
