from __future__ import annotations

import os
from pathlib import Path

import pytest

from phalanx_client import config
from phalanx_client.config import Manager
from phalanx_client.failure import Failure


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    config.write(str(path), "http://file:7910", "phx_file", "a test's")
    return path


def test_an_option_wins_over_the_environment_and_that_over_the_file(file: Path) -> None:
    environ = {"PHALANX_CONFIG": str(file), "PHALANX_URL": "http://env", "PHALANX_TOKEN": "phx_env"}

    assert Manager("http://option", "phx_option") == config.find(
        "http://option", "phx_option", environ
    )
    assert Manager("http://env", "phx_env") == config.find(None, None, environ)
    assert Manager("http://file:7910", "phx_file") == config.find(
        None, None, {"PHALANX_CONFIG": str(file)}
    )


def test_the_files_token_is_only_sent_to_the_files_manager(file: Path) -> None:
    found = config.find("http://elsewhere", None, {"PHALANX_CONFIG": str(file)})

    assert Manager("http://elsewhere", "") == found


def test_what_we_write_only_its_owner_can_read(file: Path) -> None:
    assert 0o600 == file.stat().st_mode & 0o777


def test_a_token_that_others_can_read_is_warned_about(file: Path) -> None:
    file.chmod(0o644)

    warning = config.find(None, None, {"PHALANX_CONFIG": str(file)}).warning

    assert f"others can read the token in {file}; run: chmod 600 {file}" == warning


def test_a_client_without_any_manager_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no manager is known: `phalanx up`") as caught:
        config.find(None, None, {"HOME": str(tmp_path)})

    assert 69 == caught.value.exit_code


@pytest.mark.parametrize(
    "text",
    [
        "url = ",
        "url = 7",
        "\x00",
        "[url]\n",
        "url = " + "[" * 5000,
        "url = " + "1" * 5000,
        "#" * (1 << 20),
    ],
    ids=lambda text: text[:8],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)

    with pytest.raises(Failure, match=str(path)):
        config.find(None, None, {"PHALANX_CONFIG": str(path)})


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, why in ((pipe, "Not a regular file"), (tmp_path, "Is a directory")):
        with pytest.raises(Failure, match=f"{path} can't be read: {why}"):
            config.find(None, None, {"PHALANX_CONFIG": str(path)})
    with pytest.raises(Failure, match="/dev/zero can't be read: longer than 64 KiB"):
        config.find(None, None, {"PHALANX_CONFIG": "/dev/zero"})

    assert Manager("http://x", "") == config.find("http://x", "", {"PHALANX_CONFIG": "/dev/null"})


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "localhost:7910",
        "http://",
        "unix://relative",
        "/x",
        "http://x:port",
        "http://x:99999",
        "http://x:0",
        "http://[::1",
        "http://a\x00b",
    ],
)
def test_what_is_no_address_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is no address of a manager"):
        config.find(url, None, {"HOME": str(tmp_path)})


def test_the_file_is_where_xdg_says(tmp_path: Path) -> None:
    assert "/xdg/phalanx/config.toml" == config.path({"XDG_CONFIG_HOME": "/xdg", "HOME": "/h"})
    assert "/h/.config/phalanx/config.toml" == config.path({"HOME": "/h"})


def test_a_token_that_would_break_a_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="characters that no token has"):
        config.find("http://x", "a\r\nHost: y", {"HOME": str(tmp_path)})
