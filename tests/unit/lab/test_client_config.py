from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from phalanx_lab import client_config
from phalanx_lab.plan import Plan


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home/config.toml"
    monkeypatch.setenv("PHALANX_CONFIG", str(path))
    (tmp_path / "state/t").mkdir(parents=True)
    return path


def plan(folder: Path) -> Plan:
    return Plan(
        name="t", nodes=1, cpu=1, mem=2**30, subnet=0, state_root=f"{folder}/state", run_root="/r"
    )


def test_the_client_is_pointed_at_the_lab_and_nobody_else_may_read_the_token(
    config: Path, tmp_path: Path
) -> None:
    client_config.write(plan(tmp_path), "http://127.0.0.1:1", "secret")

    assert tomllib.loads(config.read_text()) == {"url": "http://127.0.0.1:1", "token": "secret"}
    assert config.stat().st_mode & 0o777 == 0o600


def test_down_puts_back_what_the_client_was_pointed_at_before(config: Path, tmp_path: Path) -> None:
    config.parent.mkdir()
    config.write_text('url = "https://real"\n')

    client_config.write(plan(tmp_path), "http://127.0.0.1:1", "one")
    client_config.write(plan(tmp_path), "http://127.0.0.1:2", "two")
    client_config.restore(plan(tmp_path).state)

    assert config.read_text() == 'url = "https://real"\n'


def test_down_leaves_no_file_where_there_was_none(config: Path, tmp_path: Path) -> None:
    client_config.write(plan(tmp_path), "http://127.0.0.1:1", "one")
    client_config.restore(plan(tmp_path).state)

    assert not config.exists()


def test_a_file_that_somebody_changed_since_is_left_alone(config: Path, tmp_path: Path) -> None:
    client_config.write(plan(tmp_path), "http://127.0.0.1:1", "one")
    config.write_text("mine now\n")
    client_config.restore(plan(tmp_path).state)

    assert config.read_text() == "mine now\n"


@pytest.mark.parametrize("killed", ["before it was noted", "before it was written", "after it"])
def test_whoever_finds_a_lab_up_does_what_a_killed_up_has_not(
    config: Path, tmp_path: Path, killed: str
) -> None:
    config.parent.mkdir()
    config.write_text('url = "https://real"\n')
    if killed != "before it was noted":
        client_config.write(plan(tmp_path), "http://127.0.0.1:1", "one")
    if killed == "before it was written":
        config.write_text('url = "https://real"\n')

    client_config.complete(plan(tmp_path), "http://127.0.0.1:1", "one")

    assert {"url": "http://127.0.0.1:1", "token": "one"} == tomllib.loads(config.read_text())
    client_config.restore(plan(tmp_path).state)
    assert 'url = "https://real"\n' == config.read_text()


def test_whoever_finds_a_lab_up_leaves_what_was_written_since(config: Path, tmp_path: Path) -> None:
    client_config.write(plan(tmp_path), "http://127.0.0.1:1", "one")
    config.write_text("mine now\n")

    client_config.complete(plan(tmp_path), "http://127.0.0.1:1", "one")

    assert "mine now\n" == config.read_text()


def test_the_file_is_looked_for_where_the_client_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHALANX_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")

    assert client_config.path() == "/x/phalanx/config.toml"
