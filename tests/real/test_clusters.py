"""Pools of hosts: one joins from behind a router that hides it, works there, and leaves. What is
sent to it is sealed for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from phalanx_lab import daemons, engine
from phalanx_lab.lab import Host, Lab
from tests.real.conftest import LAB
from tests.real.ground import (
    ACROSS,
    BASE,
    SMALL,
    Ground,
    await_true,
    beside_engine,
    fresh_name,
    interface_names,
    lines,
)

pytestmark = pytest.mark.real


@dataclass
class Far:
    """A lab whose host2 is hidden behind a router and has no agent of the lab's."""

    ground: Ground
    host: Host

    @contextmanager
    def joined(self, command: str) -> Iterator[subprocess.Popen[str]]:
        """The agent that the printed command starts, on that host."""
        lab = self.ground.lab
        config = daemons.agent_config(lab.plan, self.host.index, "")
        program, *words = command.split()
        assert "phalanx" == program
        argv = [sys.executable, "-m", "phalanx_client", *words, "--config", config]
        with Path(lab.state_dir, "logs", "far.log").open("ab") as log:
            process = subprocess.Popen(
                beside_engine(lab, self.host, *argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def pool(self, name: str) -> str:
        """Make a pool; the command that joins a host to it."""
        return self.ground.phalanx("cluster", "create", name).ok().strip()

    def ready(self, name: str, *hosts: str) -> None:
        """Wait for the hosts of a cluster: by default the hidden one alone."""
        wait = f"/v1/clusters/{name}/wait?timeout_s=60&nodes={len(hosts) or 1}"
        assert [*(hosts or ["host2"])] == self.ground.http("GET", wait).ok()["ready"]


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    config = tmp_path_factory.mktemp("far") / "config.toml"
    patch = pytest.MonkeyPatch()
    patch.setenv("PHALANX_CONFIG", str(config))
    try:
        with Lab.up(f"{LAB}{os.getpid()}f", 2, nat=("host2",), bare=("host2",)) as lab:
            lab.load("base")
            yield Far(Ground(lab, config), lab.hosts[1])
    finally:
        patch.undo()


def ours(far: Far) -> dict[str, tuple[str, ...]]:
    """What is on the hidden host by our names: in its engine, its firewall, its interfaces."""
    ask = engine.ask(far.host.engine_socket, "GET", "/containers/json?all=1")[1]
    networks = engine.ask(far.host.engine_socket, "GET", "/networks")[1]
    rules = lines(
        far.ground.on_host(far.host, "iptables-save"), keep=lambda line: "PHALANX" in line
    )
    links = interface_names(far.ground.on_host(far.host, "ip", "-o", "link").ok())
    return {
        "containers": tuple(one["Names"][0] for one in ask),
        "networks": tuple(one["Name"] for one in networks if "phx" in one["Name"]),
        "rules": rules,
        "links": tuple(name for name in links if name.startswith("phx")),
    }


NOTHING: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("containers", "networks", "rules", "links"), ()
)


def test_a_host_behind_a_router_joins_works_and_leaves_nothing_behind(
    far: Far, tmp_path: Path
) -> None:
    ground = far.ground
    assert 0 != ground.on_host(ground.host("host1"), "ping", "-c1", "-W1", far.host.address).code

    with far.joined(far.pool("away")) as agent:
        far.ready("away")
        options = (*SMALL, "-i", BASE, "--cluster", "away", "-N", "2")
        ground.phalanx("create", *options, "-J", "hidden").ok()
        (tmp_path / "in").write_text("there and back")

        assert "sub1" == ground.inside("hidden/main1", "ssh", "sub1", "hostname").ok().strip()
        ground.phalanx("cp", str(tmp_path / "in"), "hidden/sub1:/tmp/in").ok()
        ground.phalanx("cp", "hidden/sub1:/tmp/in", str(tmp_path / "out")).ok()
        assert "there and back" == (tmp_path / "out").read_text()
        assert "sub1" == ground.phalanx("ssh", "hidden/sub1", "--", "hostname").ok().strip()
        said = ground.run("--cluster", "away", "--", "sh", "-c", "echo heard").ok()
        assert "heard" in said

        follower = ground.start("cluster", "logs", "away", "-f")
        ground.phalanx("cluster", "rm", "away", "--wait", "--timeout", "90s").ok()
        told, _ = follower.communicate(timeout=30)

        assert 4 == agent.wait(30)
        assert NOTHING == ours(far)
        assert "deleted" == ground.http("GET", "/v1/clusters/away").ok()["state"]
        assert "cluster away is gone" in told.splitlines()[-1]
        assert "hidden" not in ground.phalanx("ps", "-q").ok()


def test_a_removal_goes_on_when_the_manager_is_killed_in_the_middle(far: Far) -> None:
    ground = far.ground
    with far.joined(far.pool("broken")) as agent:
        far.ready("broken")
        ground.phalanx("create", *SMALL, "-i", BASE, "--cluster", "broken", "-J", "victim").ok()
        ground.phalanx("cluster", "rm", "broken").ok()
        ground.lab.fault("kill", "manager")

        assert 4 == agent.wait(60)
        ground.phalanx("cluster", "rm", "broken", "--wait", "--timeout", "60s").ok()
        assert NOTHING == ours(far)


def test_an_agent_that_died_before_it_heard_of_its_end_finds_that_it_is_over(far: Far) -> None:
    state = Path(far.host.state_dir, "agent")
    with far.joined(far.pool("forgetful")) as agent:
        far.ready("forgetful")
        who = {name: (state / name).read_bytes() for name in ("manager.json", "agent.key")}
        far.ground.phalanx("cluster", "rm", "forgetful").ok()
        assert 4 == agent.wait(60)
    for name, data in who.items():  # as it was when all was away, and nobody had told it
        (state / name).write_bytes(data)
        (state / name).chmod(0o600)
    (state / "left").touch()
    with far.joined("phalanx agent") as again:
        assert 4 == again.wait(60)

    assert [] == [name for name in (*who, "left") if (state / name).exists()]
    assert NOTHING == ours(far)


def test_a_removal_waits_for_a_host_that_is_away_and_force_says_what_stays(far: Far) -> None:
    ground = far.ground
    with far.joined(far.pool("gone")) as agent:
        far.ready("gone")
        options = (*SMALL, "-i", BASE, "--cluster", "gone", "-J", "stays")
        ground.phalanx("create", *options).ok()
        container = f"phx-{ground.show('stays')['id']}-1-main1"
        agent.kill()
        agent.wait()

        waits = ground.phalanx("cluster", "rm", "gone", "--wait", "--timeout", "3s").failed(75)
        assert "host2" in waits
        assert "--force" in waits

        forced = ground.phalanx("cluster", "rm", "gone", "--force", "--wait", "--timeout", "60s")
        forced.ok()
        assert f"left behind on host2: containers {container}" in forced.err
        shown = json.loads(ground.phalanx("cluster", "show", "gone", "-o", "json").ok())
        assert "deleted" == shown["state"]
    ground.docker(far.host, "rm", "-f", container).ok()


def test_sessions_for_a_pool_that_is_not_there_or_ends_are_refused_by_its_name(far: Far) -> None:
    ground = far.ground
    unknown = ground.run("--cluster", "nowhere", "--", "true").failed(65)
    far.pool("short-lived")
    ground.phalanx("cluster", "rm", "short-lived", "--wait", "--timeout", "30s").ok()
    ended = ground.run("--cluster", "short-lived", "--", "true").failed(65)
    again = ground.phalanx("cluster", "create", "short-lived").failed(65)

    assert "there is no cluster nowhere" in unknown
    assert "there is no cluster short-lived" in ended
    assert "--reuse-name" in again
    ground.phalanx("cluster", "create", "short-lived", "--reuse-name").ok()
    ground.phalanx("cluster", "rm", "short-lived", "--wait", "--timeout", "30s").ok()


def test_an_app_is_its_script_with_its_folder(far: Far, script: Path) -> None:
    (script / "words.py").write_text("WORD = 'together'\n")
    (script / "app.py").write_text("import sys, words\nprint(words.WORD, sys.argv[1:])\n")
    (script / ".phalanxignore").write_text("secret\n")
    (script / "secret").write_text("no")
    app = ("app", "run", str(script / "app.py"), "--cluster", "default", "--cloud", *SMALL)
    ran = far.ground.phalanx(*app, "-i", BASE, "--", "--epochs", "3").ok()
    listed = far.ground.phalanx("app", "ls", "--all", "-q").ok()

    assert "together ['--epochs', '3']" in ran
    assert listed.startswith("app-app-")


def test_the_manager_cannot_read_what_is_sent_to_a_host_behind_a_router(
    far: Far, script: Path
) -> None:
    ground, secret = far.ground, os.urandom(32).hex()
    (script / "secret.txt").write_text(secret * 5_000)
    (script / "job.sh").write_text("sha256sum < secret.txt\n")
    summed = hashlib.sha256((script / "secret.txt").read_bytes()).hexdigest()
    where = ("--cluster", "sealed", "--upload", str(script))
    with far.joined(far.pool("sealed")) as agent:
        far.ready("sealed")
        ground.phalanx("create", *SMALL, "-i", BASE, *where, "-J", "unread").ok()
        said = ground.inside("unread/main1", "sh", "job.sh").ok()
        ground.phalanx("stop", "unread").ok()
        closed = found_at_the_manager(ground, secret)
        name = memory_has(ground.lab.pid("manager"), b"unread")
        told = [ground.run(*where, "--no-seal", "--", "sh", "job.sh").ok(), said]
        open_ = found_at_the_manager(ground, secret)
        wide = ground.phalanx("nodes", "-o", "wide").ok()
        ground.phalanx("cluster", "rm", "sealed", "--wait", "--timeout", "60s").ok()
        assert 4 == agent.wait(30)

    assert [True, True] == [summed in text for text in told]
    assert ([], True) == (closed, name)  # its name is in the memory that was searched
    assert open_
    assert all("/manager/uploads/" in place or "memory" in place for place in open_)
    log = Path(ground.lab.state_dir, "logs", "far.log").read_text()
    keys = [line.split(": ")[2] for line in wide.splitlines() if ": key: " in line]
    assert [True] == [key in log for key in keys if key != lab_key(ground)]


def found_at_the_manager(ground: Ground, secret: str) -> list[str]:
    """Where in the manager's files, its log and its memory a text is."""
    state = Path(ground.lab.state_dir)
    files = [*(state / "manager").rglob("*"), state / "logs" / "manager.log"]
    needle = secret.encode()
    found = [str(path) for path in files if path.is_file() and needle in path.read_bytes()]
    return found + (["memory"] if memory_has(ground.lab.pid("manager"), needle) else [])


def memory_has(pid: int, needle: bytes) -> bool:
    """Look through all that a process can write to."""
    regions = re.findall(r"(?m)^([0-9a-f]+)-([0-9a-f]+) rw", Path(f"/proc/{pid}/maps").read_text())
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end in regions:
            memory.seek(int(start, 16))
            if needle in memory.read(int(end, 16) - int(start, 16)):
                return True
    return False


def lab_key(ground: Ground) -> str:
    """The key of the host that is not behind the router."""
    nodes = ground.http("GET", "/v1/nodes").ok()["nodes"]
    return next(str(node["public_key"]) for node in nodes if node["name"] == "host1")


def await_attempt(ground: Ground, name: str, attempt: int) -> dict[str, Any]:
    """Wait until an attempt of a session runs."""

    def there() -> bool:
        view = ground.show(name)
        return (attempt, "running") == (view["attempt"], view["state"])

    await_true(f"attempt {attempt} of {name} runs", there, 30)
    return ground.show(name)


@dataclass(frozen=True)
class Pair:
    """Both hosts in one cluster.

    Attributes:
        early: sealed when there was host1 alone, and kept in the queue.
    """

    early: str


@pytest.fixture(scope="module")
def pair(far: Far, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    ground, folder = far.ground, tmp_path_factory.mktemp("early")
    (folder / "job.sh").write_text("echo attempt $PHALANX_ATTEMPT; exec sleep 300\n")
    early = ground.detached("--hold", "--upload", str(folder), "--", "sh", "job.sh")
    token = ground.phalanx("token", "create", "--agent", "host2").ok().splitlines()[0]
    with far.joined(f"phalanx agent --join {token}"):
        far.ready("default", "host1", "host2")
        yield Pair(early)


def test_a_host_that_joined_later_is_not_given_what_it_cannot_open(
    far: Far, pair: Pair, script: Path
) -> None:
    ground = far.ground
    (script / "job.sh").write_text("echo attempt $PHALANX_ATTEMPT; exec sleep 300\n")
    send = ("--requeue", "--upload", str(script))
    ground.phalanx("node", "drain", "host1").ok()
    ground.phalanx("release", pair.early).ok()
    sealed = ground.detached(*send, "--", "sh", "job.sh")
    late = ground.detached(*send, "--no-seal", "--", "sh", "job.sh")
    for name in (sealed, late):
        ground.await_state(name, "running")
    waits = ground.show(pair.early)
    at_first = [ground.containers(name)["main1"] for name in (sealed, late)]
    ground.phalanx("node", "undrain", "host1").ok()
    ground.await_state(pair.early, "running")
    early = ground.containers(pair.early)["main1"]
    ground.phalanx("node", "drain", "host2").ok()
    ground.phalanx("requeue", sealed).ok()
    again = await_attempt(ground, sealed, 2)
    moved = next(kernel["agent"] for kernel in again["kernels"])
    ground.phalanx("node", "undrain", "host2").ok()
    for name in (pair.early, sealed, late):
        ground.phalanx("stop", "--grace", "0s", name).ok()

    assert "pending" == waits["state"]
    assert (
        "no agent that its upload is sealed for is ready: host1 is drained; "
        "host2 joined after it was submitted and cannot open its upload; submit it again"
    ) in waits["reason"]
    assert ["host2", "host2"] == at_first
    assert ("host1", "host1") == (early, moved)


@pytest.mark.usefixtures("pair")
def test_a_session_over_hosts_that_do_not_reach_each_other_is_refused_with_their_names(
    far: Far,
) -> None:
    ground = far.ground
    name = fresh_name()
    ran = ground.run("-J", name, "-N", "2", *ACROSS, "--", "true").failed(125)
    why = json.loads(ground.phalanx("why", name, "-o", "json").ok())["findings"][0]
    alone = ground.run("-N", "2", "--mode", "single-node", "--", "true")

    assert "hosts-apart" == why["code"]
    for host in ground.lab.hosts:
        assert host.name in why["text"]
    assert f"gets no answer of host host2 at {far.host.address}" in why["text"]
    assert "--mode single-node" in ran
    alone.ok()
