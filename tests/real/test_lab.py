"""A lab on this machine: real engines, real faults, and nothing left of it afterwards."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from phalanx_lab import daemons, engine, engine_root, processes, status, traces
from phalanx_lab.lab import Host, Lab, down
from phalanx_lab.status import Lock
from phalanx_lab.unavailable import Unavailable
from tests.real.ground import Ground

pytestmark = pytest.mark.real

NUMBERS = itertools.count()
BUSYBOX = "phalanx/busybox:latest"
# A first process hears SIGTERM only if it says so; else an engine that returns waits 10 s for it.
PATIENT = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")
PROBE = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=1)
except ConnectionRefusedError:
    print("there")
except OSError:
    print("away")
"""


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A lab's name; whatever happens, nothing of that lab is left, nor of the machine changed."""
    monkeypatch.setenv("PHALANX_LAB_DIR", str(tmp_path / "labs"))
    monkeypatch.setenv("PHALANX_CONFIG", str(tmp_path / "config.toml"))
    fresh = f"t{os.getpid()}x{next(NUMBERS)}"
    before = traces.machine_network()

    yield fresh

    down(fresh)
    assert [] == traces.of(fresh)
    assert before == traces.machine_network()


def engines(name: str, nodes: int) -> Lab:
    return Lab.up(name, nodes, engines_only=True)


def eventually(true: Callable[[], bool], within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def ask(host: Host, method: str, url: str, body: Any = None) -> Any:
    code, told = engine.ask(host.engine_socket, method, url, body)
    assert code < 300, told
    return told


def start(host: Host, container: str, *command: str, network: str = "none") -> None:
    body: dict[str, Any] = {"Image": BUSYBOX, "HostConfig": {"NetworkMode": network}}
    ask(host, "POST", f"/containers/create?name={container}", body | {"Cmd": command})
    ask(host, "POST", f"/containers/{container}/start")


def reach(host: Host, address: str) -> str:
    space = ["nsenter", f"--net=/run/netns/{host.netns}"]
    return subprocess.run(
        [*space, sys.executable, "-c", PROBE, address], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_engines_come_up_as_separate_machines_and_go_again_and_again(name: str) -> None:
    for _ in range(3):
        lab = engines(name, 3)
        told = [ask(host, "GET", "/info") for host in lab.hosts]

        assert [host["Name"] for host in told] == ["host1", "host2", "host3"]
        assert len({host["ID"] for host in told}) == 3
        assert {reach(lab.hosts[0], host.address) for host in lab.hosts} == {"there"}
        lab.down()
        assert [] == traces.of(name)


def test_containers_on_two_engines_meet_on_an_overlay_network(name: str) -> None:
    lab = engines(name, 2)
    one, two = lab.hosts
    lab.load("busybox")
    spec = {"ListenAddr": one.address, "AdvertiseAddr": one.address}
    ask(one, "POST", "/swarm/init", spec)
    token = ask(one, "GET", "/swarm")["JoinTokens"]["Worker"]
    join = {"RemoteAddrs": [one.address], "JoinToken": token, "ListenAddr": two.address}
    ask(two, "POST", "/swarm/join", join)
    ask(one, "POST", "/networks/create", {"Name": "ov", "Driver": "overlay", "Attachable": True})

    start(one, "peer", "sleep", "1000", network="ov")
    start(two, "caller", "ping", "-c", "1", "-w", "15", "peer", network="ov")

    assert ask(two, "POST", "/containers/caller/wait")["StatusCode"] == 0


def test_a_second_up_finds_the_lab_and_another_size_is_refused(name: str) -> None:
    first = engines(name, 1)

    assert engines(name, 1).status().supervisor == first.status().supervisor
    with pytest.raises(ValueError, match="runs with other options: 1 hosts"):
        engines(name, 2)


def test_a_killed_engine_is_started_again_and_its_containers_have_ended(name: str) -> None:
    lab = engines(name, 1)
    (host,) = lab.hosts
    lab.load("busybox")
    start(host, "victim", *PATIENT)
    before = lab.pid("engine-1")

    lab.fault("kill", "engine-1")

    eventually(lambda: lab.pid("engine-1") not in (0, before))
    eventually(lambda: engine.answers(host.engine_socket))
    assert ask(host, "GET", "/containers/victim/json")["State"]["Running"] is False


def test_a_frozen_engine_answers_again_when_it_thaws(name: str) -> None:
    lab = engines(name, 1)
    socket = lab.hosts[0].engine_socket

    lab.fault("stop", "engine-1")
    assert not engine.answers(socket)
    lab.fault("cont", "engine-1")

    eventually(lambda: engine.answers(socket))


def test_a_cut_host_is_away_until_its_link_is_healed(name: str) -> None:
    lab = engines(name, 2)
    one, two = lab.hosts

    lab.fault("cut", "host2")
    assert reach(one, two.address) == "away"
    lab.fault("heal", "host2")

    eventually(lambda: reach(one, two.address) == "there")


def test_a_way_between_two_hosts_is_cut_for_them_alone(name: str) -> None:
    lab = engines(name, 3)
    one, two, three = lab.hosts

    lab.fault("cut", "host1:host2")
    seen = reach(one, two.address), reach(one, three.address), reach(three, two.address)
    lab.fault("heal", "host1:host2")

    assert ("away", "there", "there") == seen
    assert "there" == reach(one, two.address)


def test_a_slow_link_is_narrow_until_it_is_healed(name: str) -> None:
    lab = engines(name, 1)
    inside = ["nsenter", f"--net=/run/netns/{lab.plan.netns('h1')}", "tc", "qdisc", "show"]

    lab.fault("slow", "host1")
    lab.fault("slow", "host1")
    slow = subprocess.run(inside, capture_output=True, text=True, check=True).stdout
    lab.fault("heal", "host1")
    healed = subprocess.run(inside, capture_output=True, text=True, check=True).stdout

    assert "rate 2Mbit" in slow
    assert "tbf" not in healed


def test_a_host_that_loses_power_takes_its_containers_along_and_returns(name: str) -> None:
    lab = engines(name, 1)
    (host,) = lab.hosts
    lab.load("busybox")
    start(host, "victim", *PATIENT)
    pid = ask(host, "GET", "/containers/victim/json")["State"]["Pid"]

    lab.fault("kill", "host1")

    eventually(lambda: not processes.alive(pid))
    eventually(lambda: lab.status().components["engine-1"].restarts == 1)
    eventually(lambda: engine.answers(host.engine_socket))


def test_a_fault_on_something_unknown_names_what_there_is(name: str) -> None:
    lab = engines(name, 1)

    with pytest.raises(ValueError, match=r"no component 'engine-7'; there are .*engine-1"):
        lab.fault("kill", "engine-7")


def test_a_component_killed_by_the_command_line_is_there_again_and_an_unknown_one_is_refused(
    clean: Ground,
) -> None:
    lab = clean.lab
    button = ("lab", "fault", "kill", "--name", lab.plan.name)
    first, others = lab.pid("agent-1"), (lab.pid("agent-2"), lab.pid("manager"))

    done = clean.phalanx(*button, "agent-1")
    eventually(lambda: lab.pid("agent-1") not in (0, first))
    eventually(lambda: "host1" in daemons.connected_agents(lab.plan, lab.plan.http_port))
    refused = clean.phalanx(*button, "agent-7").failed(64)
    nowhere = clean.phalanx("lab", "fault", "kill", "--name", "nowhere", "agent-1").failed(69)

    assert ("", "") == (done.ok(), done.err)
    assert not processes.alive(first)
    assert "phalanx lab: no component 'agent-7'; there are " in refused
    assert "agent-1, agent-2, agent-3" in refused
    assert "phalanx lab: lab nowhere" in nowhere
    assert others == (lab.pid("agent-2"), lab.pid("manager"))


def test_what_a_killed_supervisor_left_is_cleared_and_its_images_stay(name: str) -> None:
    lab = engines(name, 2)
    lab.load("busybox")
    start(lab.hosts[0], "victim", *PATIENT)
    orphan = lab.pid("engine-1")

    lab.fault("kill", "supervisor")
    eventually(lambda: lab.phase() == "dead")
    again = engines(name, 2)

    assert not processes.alive(orphan)
    assert ask(again.hosts[0], "GET", f"/images/{BUSYBOX}/json")["RepoTags"] == [BUSYBOX]
    assert ask(again.hosts[0], "GET", "/containers/victim/json")["State"]["Running"] is False


def test_down_clears_what_a_killed_supervisor_left_with_running_containers(name: str) -> None:
    lab = engines(name, 2)
    lab.load("busybox")
    start(lab.hosts[0], "victim", *PATIENT)

    lab.fault("kill", "supervisor")
    eventually(lambda: lab.phase() == "dead")
    lab.down()

    assert [] == traces.of(name)


def test_a_supervisor_told_to_stop_clears_up_and_keeps_the_state(name: str) -> None:
    lab = engines(name, 1)
    lab.load("busybox")

    os.kill(lab.pid("supervisor"), signal.SIGTERM)
    claim = Lock(lab.plan.run_root, name, "supervisor")
    eventually(lambda: not claim.holder())

    assert [f"folder {lab.state_dir}"] == traces.of(name)
    again = engines(name, 1)
    assert ask(again.hosts[0], "GET", f"/images/{BUSYBOX}/json")["RepoTags"] == [BUSYBOX]


def test_two_labs_live_side_by_side_and_one_outlives_the_other(name: str) -> None:
    other = f"{name}b"
    with engines(name, 1) as first:
        with engines(other, 1) as second:
            assert first.plan.network != second.plan.network
            assert engine.answers(second.hosts[0].engine_socket)
        assert [] == traces.of(other)
        assert engine.answers(first.hosts[0].engine_socket)


def test_an_image_has_one_id_on_all_engines_and_is_loaded_once(name: str) -> None:
    lab = engines(name, 2)
    said: list[str] = []

    lab.load("busybox")
    ids = {ask(host, "GET", f"/images/{BUSYBOX}/json")["Id"] for host in lab.hosts}
    lab.load("busybox", said.append)

    assert len(ids) == 1
    assert [f"{BUSYBOX} is on all 2 engines already"] == said


def test_the_smallest_image_runs_without_shell_or_library(name: str) -> None:
    lab = engines(name, 1)
    (host,) = lab.hosts
    ref = lab.load("empty")
    body = {"Image": ref, "Cmd": ["/hold", "0", "7"], "HostConfig": {"NetworkMode": "none"}}

    ask(host, "POST", "/containers/create?name=hold", body)
    ask(host, "POST", "/containers/hold/start")

    assert ask(host, "POST", "/containers/hold/wait")["StatusCode"] == 7


def test_an_engine_that_cannot_start_fails_the_lab_with_the_place_of_its_last_words(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bin/dockerd"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no engine today >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")

    with pytest.raises(Unavailable, match=r"engine-1: ends at each start \(code 3\).*engine"):
        engines(name, 1)

    log = tmp_path / "labs" / name / "logs/engine-1.log"
    assert log.read_text().startswith("no engine today\n")
    assert status.read(f"/run/phalanx-lab/{name}") is None


def test_engines_of_another_generation_share_folders_and_mounts_with_the_machine(
    name: str, tmp_path: Path
) -> None:
    root = engine_root.build("sid", print)
    lab = Lab.up(name, 1, engines_only=True, engine_root=root)
    (host,) = lab.hosts
    own = subprocess.run(["dockerd", "--version"], check=True, capture_output=True, text=True)
    lab.load("busybox")
    (tmp_path / "note").write_text("")
    bind = {"NetworkMode": "none", "Binds": [f"{tmp_path}:/x:ro"]}
    body = {"Image": BUSYBOX, "Cmd": ["test", "-e", "/x/note"], "HostConfig": bind}

    ask(host, "POST", "/containers/create?name=look", body)
    ask(host, "POST", "/containers/look/start")

    assert ask(host, "GET", "/version")["Version"] not in own.stdout
    assert ask(host, "POST", "/containers/look/wait")["StatusCode"] == 0


def test_the_manager_is_reached_from_the_machine_and_the_agents_have_joined_it(name: str) -> None:
    lab = Lab.up(name, 2)

    assert sorted(daemons.connected_agents(lab.plan, lab.plan.http_port)) == ["host1", "host2"]
    assert tomllib.loads(Path(os.environ["PHALANX_CONFIG"]).read_text()) == {
        "url": lab.url,
        "token": lab.admin_token,
    }
    lab.down()
    assert not Path(os.environ["PHALANX_CONFIG"]).exists()


def test_callers_queue_while_a_killed_manager_returns(name: str) -> None:
    lab = Lab.up(name, 1)

    lab.fault("kill", "manager")

    assert daemons.manager_answers(lab.plan.http_port)
    eventually(lambda: daemons.connected_agents(lab.plan, lab.plan.http_port) == {"host1"})


def test_agents_of_a_lab_whose_supervisor_died_need_no_second_token(name: str) -> None:
    lab = Lab.up(name, 1)
    before = lab.url, lab.admin_token

    lab.fault("kill", "supervisor")
    eventually(lambda: lab.phase() == "dead")
    again = Lab.up(name, 1)

    assert before == (again.url, again.admin_token)
