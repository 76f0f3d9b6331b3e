"""`phalanx up` up to where it needs an engine."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from phalanx_client import config
from phalanx_up.__main__ import NOTE, keep_aside, main

Up = Callable[..., tuple[int, str, str]]


@pytest.fixture
def up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Up]:
    monkeypatch.setenv("PHALANX_CONFIG", str(tmp_path / "client.toml"))

    def use(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["up", "--data", str(tmp_path / "data"), *argv])
        code = main()
        said = capsys.readouterr()
        return code, said.out, said.err

    yield use
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--listen", "nowhere"), "http must be host:port"),
        (("--agents", "7911"), "rpc must be tcp://address:port"),
        (("--nope",), "unrecognized arguments"),
    ],
)
def test_what_can_not_be_meant_is_64_and_a_sentence(
    up: Up, argv: tuple[str, ...], sentence: str
) -> None:
    code, out, err = up(*argv)

    assert (64, "") == (code, out)
    assert sentence in err


def test_a_port_that_is_taken_is_69_and_a_sentence(up: Up) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]

        code, out, err = up("--listen", f"127.0.0.1:{port}", "--agents", "tcp://127.0.0.1:*")

    assert (69, "") == (code, out)
    assert f"phalanx up: 127.0.0.1:{port}: cannot listen" in err


def test_a_runtime_folder_on_a_disk_is_69_and_a_sentence(up: Up, tmp_path: Path) -> None:
    listen = ("--listen", f"unix://{tmp_path}/api", "--agents", "tcp://127.0.0.1:*")

    code, out, err = up(*listen, "--runtime-dir", str(tmp_path / "run"))

    assert (69, "") == (code, out)
    assert "phalanx up: " in err
    assert "tmpfs" in err or "memory" in err


def test_the_clients_configuration_of_another_manager_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    config.write(str(file), "http://other", "t", "somebody else's")

    kept = keep_aside(str(file))

    assert f"{file}.before-up" == kept
    assert "http://other" in Path(kept).read_text()


def test_our_own_configuration_is_written_over(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    config.write(str(file), "http://x", "t", NOTE)

    assert ("", "") == (keep_aside(str(file)), keep_aside(str(tmp_path / "none")))
