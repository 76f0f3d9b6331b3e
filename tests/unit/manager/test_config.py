"""The configuration: all mistakes at once, in sentences."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from phalanx_manager.__main__ import main
from phalanx_manager.config import ConfigError, ManagerConfig, load, parse

LIKE = "must be an IPv4 subnet like 10.213.0.0/16"


def test_an_empty_file_is_the_defaults() -> None:
    assert ManagerConfig() == parse({})


def test_the_commented_defaults_of_the_shipped_file_are_the_defaults() -> None:
    shipped = Path(__file__).parents[3] / "deploy/config/manager.toml"
    lines = [
        line.removeprefix("# ") if " = " in line and line.startswith("# ") else line
        for line in shipped.read_text().splitlines()
    ]
    told = tomllib.loads("\n".join(lines))
    told["advertise"] = []
    assert "" == told.pop("url")
    default = ManagerConfig(admin_token_file=Path("/var/lib/phalanx/admin.token"))

    assert default == parse(told)


@pytest.mark.parametrize(
    ("document", "mistake"),
    [
        ({"http": 7}, "http must be a text."),
        ({"http": "somewhere"}, "http must be host:port, unix:///path or fd://3."),
        ({"http": "h:70000"}, "http must be host:port, unix:///path or fd://3."),
        ({"http": "127.0.0.1:-1"}, "http must be host:port, unix:///path or fd://3."),
        ({"http": "unix://here"}, "http must be host:port, unix:///path or fd://3."),
        ({"rpc": "tcp://h:70000"}, "rpc must be tcp://address:port, like tcp://0.0.0.0:7911."),
        ({"rpc": "7911"}, "rpc must be tcp://address:port, like tcp://0.0.0.0:7911."),
        ({"data_dir": "here"}, "data_dir must be an absolute path."),
        ({"lost_after_s": 1}, "lost_after_s must be from 10 to 86400."),
        ({"lost_after_s": 19}, "lost_after_s must be at least 4 times heartbeat_s."),
        ({"lost_after_s": True}, "lost_after_s must be a number."),
        ({"lost_after_s": float("nan")}, "lost_after_s must be from 10 to 86400."),
        (
            {"database": "mysql://root:secret@db/x"},
            'database must be "sqlite", or like postgresql://user:password@host:5432/name.',
        ),
        (
            {"database": "postgresql://db"},
            'database must be "sqlite", or like postgresql://user:password@host:5432/name.',
        ),
        (
            {"url": "manager"},
            "url must be like https://manager.example or http://192.0.2.1:7910.",
        ),
        ({"keep_days": 0}, "keep_days must be from 1 to 36500."),
        ({"swarm": "never"}, 'swarm must be "on-demand" or "eager".'),
        ({"pool": "10.213.0.0/31"}, "pool must be an IPv4 subnet of /8 to /28."),
        ({"pool": "fd00::/64"}, "pool must be an IPv4 subnet of /8 to /28."),
        (
            {"pool": "10.213.0.0/33"},
            f"pool {LIKE} ('10.213.0.0/33' does not appear to be an IPv4 or IPv6 network).",
        ),
        ({"pool": "10.213.0.1/16"}, f"pool {LIKE} (10.213.0.1/16 has host bits set)."),
        ({"pool": "10.212.0.0/14"}, "pool 10.212.0.0/14 and egress_subnet 10.212.0.0/20 overlap."),
        ({"pool": "10.213.0.0/27"}, "pool 10.213.0.0/27 is too small; a session needs a /26."),
        ({"limits": 3}, "limits must be a table."),
        ({"limits": {"max_size": 0}}, "limits.max_size must be a whole number from 1 to 10000."),
        ({"htp": "x"}, "htp is not a setting of the manager; did you mean http?"),
    ],
)
def test_a_mistake_is_told_with_its_key(document: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(document)

    assert [mistake] == caught.value.mistakes


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"http": 1, "rpc": 2, "nonsense": 3})

    assert 3 == len(caught.value.mistakes)


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (None, "No such file or directory"),
        (b"a = ", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"[limits]\n[limits]\n", r"is not TOML: .*line 2"),
        (b"pool:\n\t- 10.0.0.0/8\n", "is not TOML"),
        (b"a = " + b"[" * 5000, "is not TOML: nested too deep"),
        (b"a = " + b"1" * 5000, "is not TOML: .*digits"),
        (b"#" * (1 << 20), "is not TOML: longer than 64 KiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, mistake: str
) -> None:
    path = tmp_path / "manager.toml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=mistake) as caught:
        load(path)
    assert str(path) in caught.value.mistakes[0]


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}: Is a directory"):
        load(tmp_path)


def test_a_pipe_in_its_place_is_named_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=f"{pipe}: Not a regular file"):
        load(pipe)


def test_a_file_that_anybody_may_write_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "manager.toml"
    path.write_text("")
    path.chmod(0o666)

    with pytest.raises(ConfigError, match=f"anybody here may write it; `chmod o-w {path}`"):
        load(path)


def test_a_wrong_configuration_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "manager.toml"
    path.write_text("http = 7")
    monkeypatch.setattr(sys, "argv", ["manager", "--config", str(path)])

    assert (2, f"{path}: http must be a text.\n") == (main(), capsys.readouterr().err)


@pytest.mark.parametrize(
    ("url", "mode", "refused"),
    [
        ("postgresql://u:secret@db/x", 0o644, True),
        ("postgresql://u:secret@db/x", 0o640, False),
        ("postgresql://u@db/x", 0o644, False),
    ],
)
def test_a_password_that_others_can_read_is_refused_and_not_repeated(
    tmp_path: Path, url: str, mode: int, *, refused: bool
) -> None:
    path = tmp_path / "manager.toml"
    path.write_text(f'database = "{url}"\n')
    path.chmod(mode)
    told: list[str] = []
    try:
        load(path)
    except ConfigError as error:
        told = error.mistakes

    expected = f"{path}: others can read the database's password in it; `chmod 600 {path}`."
    assert [expected] * refused == told
