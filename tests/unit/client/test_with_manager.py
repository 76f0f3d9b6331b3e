"""The command line against the real manager: that both mean the same by the API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.unit.client.conftest import Cli


@dataclass(frozen=True)
class Running:
    """A manager that is up."""

    url: str
    token: str


@pytest.fixture(scope="module", params=["tcp", "unix"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A manager without agents, in a process of its own; it tells when it is ready."""
    folder = tmp_path_factory.mktemp("manager")
    http = f"127.0.0.1:{free_port()}" if request.param == "tcp" else f"unix://{folder}/api"
    config = folder / "manager.toml"
    config.write_text(f'data_dir = "{folder}/data"\nhttp = "{http}"\nrpc = "tcp://127.0.0.1:*"\n')
    with (
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as told,
        (folder / "log").open("wb") as log,
    ):
        told.bind(f"{folder}/notify")
        told.settimeout(30)
        with subprocess.Popen(
            [sys.executable, "-m", "phalanx_manager", "--config", str(config)],
            env={**os.environ, "NOTIFY_SOCKET": f"{folder}/notify"},
            stdout=log,
            stderr=log,
        ) as process:
            try:
                assert b"READY=1" == told.recv(100)
                url = http if request.param == "unix" else f"http://{http}"
                yield Running(url, (folder / "data" / "admin.token").read_text().strip())
            finally:
                process.terminate()


@pytest.fixture
def real(running: Running, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line with the real manager's address and its administrator's token."""
    monkeypatch.setenv("PHALANX_URL", running.url)
    monkeypatch.setenv("PHALANX_TOKEN", running.token)
    return cli


@pytest.fixture
def demo(real: Cli) -> Iterator[str]:
    """A session that waits, since there is no agent."""
    name = real("run", "--detach", "-i", "alpine", "-N", "2", "--", "id").out.strip()
    yield name
    real("stop", "-q", name)


def test_a_session_that_waits_is_listed_with_its_reason(real: Cli, demo: str) -> None:
    shown = real("show", demo)

    assert 0 == shown.code
    assert "no agent" in shown.out
    assert demo in real("ps", "-o", "name").out.split()
    assert "pending" == json.loads(real("show", demo, "-o", "json").out)["state"]


def test_what_a_session_asked_for_comes_back_filled_in(real: Cli, demo: str) -> None:
    spec = json.loads(real("show", demo, "-o", "json").out)["spec"]

    assert (["id"], ["main", "sub"]) == (spec["command"], [role["name"] for role in spec["roles"]])


def test_the_environment_is_told_for_a_rank_by_name(real: Cli, demo: str) -> None:
    said = json.loads(real("env", f"{demo}/sub1", "-o", "json").out)["ranks"]

    assert [1] == [rank["rank"] for rank in said]
    assert "1" in [var["value"] for var in said[0]["variables"] if var["name"] == "RANK"]


def test_events_and_logs_of_what_has_not_run_come_to_an_end(real: Cli, demo: str) -> None:
    assert "session.submitted" in real("events", demo, "-o", "name").out
    assert (0, "") == (real("logs", demo).code, real("logs", demo).out)


def test_a_stopped_session_is_waited_for(real: Cli) -> None:
    name = real("run", "--detach", "-i", "alpine", "id").out.strip()

    stopped = real("stop", name)
    waited = real("wait", name)

    assert (0, f"{name} has ended: cancelled\n") == (stopped.code, stopped.err)
    assert 0 != waited.code
    assert "was cancelled" in waited.err


def test_a_wait_in_vain_is_75(real: Cli, demo: str) -> None:
    assert 75 == real("wait", demo, "--until", "running", "--timeout", "1s").code


def test_an_upload_is_kept_and_named(real: Cli, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.py").write_text("x")

    words = ("run", "--detach", "-i", "alpine", "--upload", str(tmp_path))

    refused = real(*words, "--cluster", "nobodys", "id")

    assert (65, True) == (refused.code, "there is no cluster nobodys" in refused.err)
    assert "cluster default has none yet" in real(*words, "id").err
    name = real(*words, "--no-seal", "id").out.strip()
    spec = json.loads(real("show", name, "-o", "json").out)["spec"]
    real("stop", name)

    assert spec["upload"].startswith("sha256:")


def test_what_can_not_be_reached_in_a_container_that_does_not_run_is_said(
    real: Cli, demo: str, tmp_path: Path
) -> None:
    ran = real("exec", demo, "--", "id")
    copied = real("cp", f"{demo}:/etc/passwd", str(tmp_path))
    signalled = real("kill", demo)

    assert (65, 65, 65) == (ran.code, copied.code, signalled.code)
    assert "rank 0 (main1) is pending" in ran.err


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("show", "nobody"), 66),
        (("show", "NO BODY"), 66),
        (("logs", "nobody"), 66),
        (("stop", "nobody"), 66),
        (("token", "revoke", "nothing"), 66),
        (("run", "-i", "alpine", "-N", "0", "id"), 65),
        (("run", "-i", "UPPER CASE", "id"), 65),
        (("run", "-i", "alpine", "-J", "Not_A_Name", "id"), 65),
        (("run", "-i", "alpine", "-m", "lots", "id"), 65),
        (("run", "-i", "alpine", "--role", "main=2", "id"), 65),
        (("run", "id"), 65),
        (("--token", "phx_wrong", "ps"), 77),
    ],
)
def test_what_the_manager_refuses_has_a_sentence_and_a_code(
    real: Cli, argv: tuple[str, ...], code: int
) -> None:
    outcome = real(*argv)

    assert (code, "") == (outcome.code, outcome.out)
    assert outcome.err.startswith("phalanx: ")
    assert "bug" not in outcome.err


def test_a_reader_may_look_but_not_submit(real: Cli) -> None:
    secret = real("token", "create", "eve", "--scope", "read-only", "-q").out.strip()

    looked = real("--token", secret, "ps")
    asked = real("--token", secret, "run", "-i", "alpine", "id")

    assert (0, 77) == (looked.code, asked.code)


def test_a_dry_run_says_why_it_would_wait(real: Cli) -> None:
    outcome = real("run", "--dry-run", "-i", "alpine", "id")

    assert 0 == outcome.code
    assert outcome.out.startswith("it would wait: ")


def test_without_agents_there_are_no_nodes(real: Cli) -> None:
    assert (0, "") == (real("nodes", "-q").code, real("nodes", "-q").out)
