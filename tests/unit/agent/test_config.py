from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from phalanx_agent.config import AllowedMount, Capacity, ConfigError, load, parse


def test_a_whole_configuration_is_read(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        """
name = "host1"
state_dir = "/s"
runtime_dir = "/r"
engine = "unix:///e.sock"
join = "phxjoin1.x"
advertise = "10.0.0.1"
[capacity]
cpu = 1.5
mem = "4G"
pids = 100
[mounts]
allow = ["/data", { path = "/scratch", write = true }]
"""
    )

    config = load(file)

    assert ("host1", Path("/s"), Path("/r"), "/e.sock") == (
        config.name,
        config.state_dir,
        config.runtime_dir,
        config.engine,
    )
    assert ("phxjoin1.x", "10.0.0.1") == (config.join, config.advertise)
    assert Capacity(1500, 4 << 30, 100) == config.capacity
    assert (AllowedMount("/data"), AllowedMount("/scratch", write=True)) == config.mounts


def test_nothing_has_to_be_said(tmp_path: Path) -> None:
    config = parse({"name": "host1"})

    assert "/var/run/docker.sock" == config.engine
    assert () == config.mounts
    assert (False, "61000-61999") == (config.host_network, str(config.host_ports))


def test_all_managers_may_be_named() -> None:
    config = parse({"name": "host1", "managers": ["tcp://a:7911", "tcp://192.0.2.2:7911"]})

    assert ("tcp://a:7911", "tcp://192.0.2.2:7911") == config.managers


def test_all_mistakes_are_told_at_once() -> None:
    wrong = {
        "name": "Host 1",
        "state_dir": "relative",
        "engine": "tcp://1.2.3.4",
        "nonsense": 1,
        "managers": ["a:7911"],
        "host_network": "yes",
        "host_ports": "99-98",
        "capacity": {"cpu": 0, "mem": "much", "gpu": 1},
        "mounts": {"allow": [{"path": "/x", "wirte": True}]},
    }

    with pytest.raises(ConfigError) as caught:
        parse(wrong)

    told = " ".join(caught.value.mistakes)
    for word in (
        "managers",
        "host_network",
        "host_ports",
        "name",
        "state_dir",
        "engine",
        "nonsense",
        "cpu",
        "mem",
        "gpu",
        "allow",
    ):
        assert word in told


@pytest.mark.parametrize(
    ("document", "mistake"),
    [
        ({"advertise": "host1"}, "advertise must be an address of this host, like 192.0.2.11."),
        ({"advertise": "10.0.0.1 -j ACCEPT"}, "advertise must be an address of this host"),
        ({"host_ports": "61000-70000"}, "host_ports must be ports from 1024 to 65535"),
        ({"capacity": {"cpu": float("nan")}}, "capacity.cpu must be a number of cores."),
        ({"capacity": {"mem": -1}}, "capacity.mem must be a positive whole number."),
        ({"mounts": {"alow": ["/x"]}}, "mounts.alow is not a setting of the agent; did you mean"),
    ],
)
def test_a_mistake_is_told_with_its_key(document: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"name": "host1", **document})

    assert [True] == [told.startswith(mistake) for told in caught.value.mistakes]


def test_a_pipe_in_the_files_place_is_named_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=f"{pipe}: Not a regular file"):
        load(pipe)


@pytest.mark.parametrize("content", [b"name = ", b"= 3", b"\xff\xfe", b"[mounts]\n[mounts]\n"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "agent.toml"
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=r"agent\.toml is not TOML"):
        load(file)


def test_a_file_that_anybody_may_write_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('name = "host1"')
    file.chmod(0o646)

    with pytest.raises(ConfigError, match=f"anybody here may write it; `chmod o-w {file}`"):
        load(file)


@pytest.mark.parametrize("place", ["nosuch.toml", "."])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path / place)):
        load(tmp_path / place)


def test_what_is_said_on_the_command_line_wins_and_a_token_needs_no_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    alone = load(path, {"join": "phxjoin1.a", "name": "far"})
    path.write_text('name = "near"\njoin = "phxjoin1.b"\nstate_dir = "/srv/agent"\n')
    path.chmod(0o600)
    both = load(path, {"join": "phxjoin1.a"})

    assert ("far", "phxjoin1.a") == (alone.name, alone.join)
    assert ("near", "phxjoin1.a", Path("/srv/agent")) == (both.name, both.join, both.state_dir)
    with pytest.raises(ConfigError, match="name"):
        load(path, {"join": "phxjoin1.a", "name": "No Name"})
