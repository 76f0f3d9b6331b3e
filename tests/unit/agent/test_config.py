from __future__ import annotations

from pathlib import Path

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


def test_all_mistakes_are_told_at_once() -> None:
    wrong = {
        "name": "Host 1",
        "state_dir": "relative",
        "engine": "tcp://1.2.3.4",
        "nonsense": 1,
        "host_network": "yes",
        "host_ports": "99-98",
        "capacity": {"cpu": 0, "mem": "much", "gpu": 1},
        "mounts": {"allow": [{"path": "/x", "wirte": True}]},
    }

    with pytest.raises(ConfigError) as caught:
        parse(wrong)

    told = " ".join(caught.value.mistakes)
    for word in (
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


@pytest.mark.parametrize("text", ["name = ", "= 3"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=r"agent\.toml is not TOML"):
        load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nosuch\.toml"):
        load(tmp_path / "nosuch.toml")
