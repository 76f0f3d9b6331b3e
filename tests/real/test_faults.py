"""What the world around us does to sessions: engines, links, disks, memory, addresses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phalanx_lab.lab import Host
from tests.real import audit
from tests.real.failing import (
    ENDED,
    ON_BOTH,
    PATIENCE_S,
    WITNESS,
    Site,
    containers,
    kill_containerd,
    state_of,
)
from tests.real.ground import Ground, assert_same_traces, await_true, call, settled_traces
from tests.real.test_attempts import RESTARTED
from tests.support.failpoints import Point

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

CODE = 7
MORE_THAN_HALF = {"cpu": 10, "mem": "64M"}
SILENT = "The engine did not answer in time; is it overloaded or stopped?"
UNTIL_ENOUGH = (
    WITNESS + 'until [ -e "/share/enough.$PHALANX_SESSION_ID" ]; do sleep 0.05; done; exit 7'
)

PHASES = {
    "preparing": Point("docker.create_container", "before", "hang"),
    "barrier": Point("docker.start", "after", "hang"),
    "running": None,
    "stopping": Point("logs.keep", "before", "hang"),
}
"""Where the agents are held while it happens."""


@pytest.fixture
def site(failing: Site) -> Iterator[Site]:
    """The lab; after the test all its hosts are well and nothing is left of what was done."""
    before = settled_traces(failing.ground)
    try:
        yield failing
    finally:
        failing.clear()
    await_true("all hosts are well", lambda: all(map(failing.works, (1, 2))), PATIENCE_S)
    assert_same_traces(before, failing.ground)


def one_on_each(site: Site, script: str = UNTIL_ENOUGH, **spec: Any) -> list[str]:
    """Two sessions of one container, of which each host has room for one; their ids."""
    share = {"source": str(site.share), "target": "/share", "read_only": False}
    wish = {
        "command": ["sh", "-c", script],
        "env_profile": "default",
        "mounts": [share],
        "resources": MORE_THAN_HALF,
        "grace_s": 1,
        "lost_after_s": 300,
        **spec,
    }
    return [site.submit(**wish) for _host in range(2)]


def by_host(site: Site, sessions: list[str]) -> tuple[str, str]:
    """The sessions on the first and on the second host."""
    agents = {site.view(session)["kernels"][0]["agent"]: session for session in sessions}
    return agents["host1"], agents["host2"]


def enough(site: Site, *sessions: str) -> None:
    """Let their commands end."""
    for session in sessions:
        (site.share / f"enough.{session}").touch()


@contextlib.contextmanager
def agents_held(site: Site, point: Point | None) -> Iterator[None]:
    """Both agents stand still at a point, until the end of the block."""
    agents = ("agent-1", "agent-2")

    def pids() -> list[int]:
        return [site.ground.lab.pid(agent) for agent in agents]

    if point is not None:
        await_true(
            f"both agents are at {point.call}",
            lambda: all(pid and state_of(pid) == "T" for pid in pids()),
            PATIENCE_S,
        )
    try:
        yield
    finally:
        for agent, pid in zip(agents, pids(), strict=True):
            if point is not None:
                point.disarm(site.folder(agent))
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("phase", PHASES)
def test_a_dead_engine_fails_its_session_and_a_frozen_one_that_is_cut_off_does_not(
    site: Site, phase: str
) -> None:
    lab, point = site.ground.lab, PHASES[phase]
    if point is not None:
        for agent in ("agent-1", "agent-2"):
            point.arm(site.folder(agent))
    sessions = one_on_each(site)
    if phase in ("running", "stopping"):
        for session in sessions:
            site.await_state(session, "running")
    if phase == "stopping":
        enough(site, *sessions)
    if phase == "running":
        leave_as_a_dying_engine(site.ground, lab.hosts[0])
    first = lab.pid("engine-1")
    with agents_held(site, point):
        lab.fault("cut", "host2")
        lab.fault("stop", "engine-2")
        lab.fault("kill", "engine-1")
    await_true("there is a new engine", lambda: lab.pid("engine-1") not in (0, first), PATIENCE_S)
    if phase == "running":
        await_true("it is noticed", lambda: site.nodes()["host2"] != "ready", PATIENCE_S)
    lab.fault("cont", "engine-2")
    lab.fault("heal", "host2")
    on_dead, on_frozen = by_host(site, sessions)
    enough(site, on_frozen)
    if phase != "running":
        enough(site, on_dead)
    dead, frozen = (site.await_state(session, *ENDED) for session in (on_dead, on_frozen))

    assert ("failed", CODE) == (frozen["state"], frozen["exit_code"])
    assert 1 == site.times_run(on_frozen)
    assert site.times_run(on_dead) <= 1
    if phase == "running":
        assert ("failed", 1) == (dead["state"], site.times_run(on_dead))
        assert f"agent host1 has exited: {RESTARTED}" in dead["reason"], dead["reason"]
    elif dead["exit_code"] != CODE:
        assert "failed" == dead["state"]
        assert "engine" in dead["reason"], dead["reason"]
        assert phase == "barrier", dead["reason"]


@pytest.mark.long  # an engine counts as silent after a minute
def test_a_frozen_engine_is_named_gets_nothing_new_and_keeps_what_it_runs(site: Site) -> None:
    lab, ground = site.ground.lab, site.ground
    share = {"source": str(site.share), "target": "/share", "read_only": False}
    wish = {"command": ["sh", "-c", UNTIL_ENOUGH], "mounts": [share], "grace_s": 1}
    kept = site.submit(**ON_BOTH, **wish)
    site.await_state(kept, "running")
    before = set(containers(ground, kept))
    lab.fault("stop", "engine-2")
    try:
        await_true("it is noticed", lambda: site.nodes()["host2"] != "ready", PATIENCE_S)
        # Each host has room for one.
        new = one_on_each(site)
        await_true("one runs", lambda: "running" in states(site, new), PATIENCE_S)
        nodes, why = ground.phalanx("nodes").ok(), ground.phalanx("why", kept).ok()
        (waiting,) = [view for view in map(site.view, new) if view["state"] == "pending"]
        (placed,) = [view for view in map(site.view, new) if view["state"] == "running"]
        shown = site.view(kept)
    finally:
        lab.fault("cont", "engine-2")
    site.await_state(waiting["id"], "running")
    after = set(containers(ground, kept))
    enough(site, kept, *new)
    view, *views = (site.await_state(session, *ENDED) for session in (kept, *new))

    assert "degraded" in nodes
    assert SILENT in nodes
    assert "host2" in why
    assert SILENT in why
    assert "running" == shown["state"]
    assert "host1" == placed["kernels"][0]["agent"]
    assert before == after
    assert ("failed", CODE, 1) == (view["state"], view["exit_code"], view["attempt"])
    assert 2 == site.times_run(kept)
    assert [("failed", CODE)] * 2 == [(one["state"], one["exit_code"]) for one in views]
    assert [1, 1] == [site.times_run(session) for session in new]


def states(site: Site, sessions: list[str]) -> set[str]:
    """The states that some sessions are in."""
    return {site.view(session)["state"] for session in sessions}


def test_a_helper_of_a_container_that_its_engine_has_lost_is_ended(site: Site) -> None:
    lab = site.ground.lab
    run = lab.plan.host_run(lab.hosts[0].index)
    lab.fault("stop", "agent-1")  # it may look just now
    with idle_shim(run) as shim:
        await_true("it is seen", lambda: len(audit.shims(run)) == 1, PATIENCE_S)  # as it begins
        lab.fault("cont", "agent-1")
        assert -signal.SIGKILL == shim.wait(PATIENCE_S)


@pytest.mark.long
def test_neither_a_dead_containerd_nor_a_dead_shim_goes_unnoticed(site: Site) -> None:
    sessions = one_on_each(site)
    for session in sessions:
        site.await_state(session, "running")
    first, second = by_host(site, sessions)
    lab = site.ground.lab
    first_pid = first_process(site, first)
    kill_containerd(lab, 1)
    os.kill(shim_of(site, second), 9)
    orphaned = site.await_state(second, *ENDED)
    enough(site, first)
    await_true("its command has ended", lambda: not state_of(first_pid), PATIENCE_S)
    kept = site.await_state(first, *ENDED)

    assert ("failed", 1) == (kept["state"], site.times_run(first))
    assert CODE == kept["exit_code"] or "engine" in kept["reason"], kept["reason"]
    assert "failed" == orphaned["state"]
    assert CODE != orphaned["exit_code"]
    assert 1 == site.times_run(second)


def leave_as_a_dying_engine(ground: Ground, host: Host) -> None:
    """What an engine that is killed now and then leaves: the end of a tunnel that it has not handed
    over, a session's bridge, a rule for another one that is gone, network namespaces of a container
    and of an overlay network, and what containerd keeps of a container whose helper has died as it
    began: it fails to remove it.
    """
    tunnel = ("type", "vxlan", "id", "48879", "dstport", "4789")
    ground.on_host(host, "ip", "link", "add", "vx-00beef-plant", *tunnel).ok()
    ground.on_host(host, "ip", "link", "add", "phxabandone1", "type", "bridge").ok()
    for way in (("FORWARD", "-j", "ACCEPT"), ("POSTROUTING", "-t", "nat", "-j", "MASQUERADE")):
        ground.on_host(host, "iptables", "-A", *way, "-o", "phxabandone2").ok()
    room = ("nsenter", f"--mount=/proc/{ground.lab.pid(f'engine-{host.index}')}/ns/mnt")
    for name in ("0123456789ab", "1-plantedone"):
        place = f"{ground.lab.plan.host_run(host.index)}/exec/netns/{name}"
        Path(place).touch()
        bind = ("mount", "--bind", "/proc/self/ns/net", place)
        call(*room, "unshare", "--net", *bind).ok()
    run, begun = f"{ground.lab.plan.host_run(host.index)}/exec", os.urandom(32).hex()
    containerd = ("ctr", "-a", f"{run}/containerd/containerd.sock", "-n", "moby", "containers")
    call(*containerd, "create", "--rootfs", run, begun, "true").ok()
    record = Path(run, "containerd/daemon/io.containerd.runtime.v2.task/moby", begun)
    record.mkdir()
    (record / "config.json").write_text("{}")


@contextlib.contextmanager
def idle_shim(run: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is, by its name and words, the shim of a container that the engine has lost.
    Where containerd is killed as a container ends, the engine removes that, and the shim lives on.
    """
    name, address = "containerd-shim-runc-v2", f"{run}/exec/containerd/containerd.sock"
    of_it = ("-namespace", "moby", "-id", os.urandom(32).hex(), "-address", address)
    waiting = (name, "-c", "read -r forever", *of_it)
    with subprocess.Popen(waiting, executable="/bin/sh", stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def first_process(site: Site, session: str) -> int:
    """The first process of a session's one container."""
    ((host, container),) = containers(site.ground, session)
    return int(site.ground.docker(host, "inspect", "-f", "{{.State.Pid}}", container).ok())


def shim_of(site: Site, session: str) -> int:
    """The process that a session's one container is the child of."""
    status = Path(f"/proc/{first_process(site, session)}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])


def test_a_rank_without_memory_ends_the_session_and_is_named(site: Site) -> None:
    script = WITNESS.replace("/share", "/tmp") + "[ $RANK = 0 ] || exec tail /dev/zero; sleep 1000"
    session = site.submit(
        **ON_BOTH, command=["sh", "-c", script], resources={"cpu": 1, "mem": "32M"}, grace_s=0
    )
    view = site.await_state(session, *ENDED)

    assert "failed" == view["state"]
    assert "sub1" in view["reason"]
    assert "memory" in view["reason"]


def test_a_full_disk_is_named_keeps_the_gang_from_starting_and_is_over_when_it_is(
    site: Site,
) -> None:
    host = site.ground.lab.hosts[0]
    memory = Path(site.ground.lab.plan.agent_memory(host.index))
    filling = memory / "filling"
    share = {"source": str(site.share), "target": "/share", "read_only": False}
    wish = {**ON_BOTH, "command": ["sh", "-c", WITNESS], "mounts": [share]}
    with filling.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
    try:
        session = site.submit(**wish)
        await_true(
            "it says what it waits for",
            lambda: "No space left" in json.dumps(site.view(session)["kernels"]),
            PATIENCE_S,
        )
        before = site.times_run(session)
    finally:
        filling.unlink()
    view = site.await_state(session, *ENDED)

    assert 0 == before
    assert ("succeeded", 2) == (view["state"], site.times_run(session))


def test_output_is_kept_although_its_disk_is_full_for_a_while(site: Site) -> None:
    lines = 5000
    with small_logs(site, site.ground.lab.hosts[0]), small_logs(site, site.ground.lab.hosts[1]):
        session = site.submit(
            command=["sh", "-c", f"i=0; until [ $i = {lines} ]; do i=$((i+1)); echo $i; done"]
        )
        view = site.await_state(session, *ENDED)
        told = site.ground.phalanx("logs", session).ok().splitlines()
        assert "succeeded" == view["state"]
        assert lines == len(told)
    again = site.ground.phalanx("logs", session).ok().splitlines()

    assert lines == len(again)


@contextlib.contextmanager
def small_logs(site: Site, host: Host) -> Iterator[None]:
    """An agent's folder for output lies on a disk of two pages."""
    folder = f"{host.state_dir}/agent/logs"
    inside = ("nsenter", f"--mount=/proc/{site.ground.lab.pid(f'engine-{host.index}')}/ns/mnt")
    call(*inside, "mount", "-t", "tmpfs", "-o", "size=8k", "small", folder).ok()
    try:
        yield
    finally:
        call(*inside, "umount", folder).ok()


def test_that_all_addresses_are_given_out_is_said_within_five_seconds(site: Site) -> None:
    plan = site.ground.lab.plan
    file = Path(plan.state) / "manager.toml"
    whole = file.read_text()
    file.write_text(f'pool = "10.213.0.0/26"\n{whole}')
    try:
        site.begin_anew("manager")
        holder = site.submit(**ON_BOTH, command=["sleep", "1000"], grace_s=0)
        site.await_state(holder, "running")
        waiting = [
            site.submit(command=["true"]),
            site.submit(**ON_BOTH, command=["true"]),
        ]
        await_true(
            "both say that no addresses are free",
            lambda: all("pool 10.213.0.0/26" in site.view(one)["reason"] for one in waiting),
            5,
        )
        for session in (*waiting, holder):
            site.stop(session)
            site.await_state(session, *ENDED)
    finally:
        file.write_text(whole)
        site.begin_anew("manager")
