"""`phalanx ssh`, `ssh-config`, `ssh-proxy` and `forward`, with a manager and an ssh of doubles."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import WSMsgType, web

from phalanx_client import ssh_client
from phalanx_client.failure import Failure
from phalanx_client.ssh_client import Home
from phalanx_wire.api import Problem, SshRank, SshView
from phalanx_wire.ssh_key import public_key
from tests.unit.client.conftest import Cli
from tests.unit.client.fake_manager import ID, TOKEN, FakeManager, fails, session

SSH = "/v1/sessions/demo/ssh"
BY_ID = f"/v1/sessions/{ID}/ssh"
FORWARD = f"/v1/sessions/{ID}/forward"
FAKE_SSH = """#!/bin/sh
for word; do echo "$word"; done
echo "token $PHALANX_TOKEN"
exit 7
"""


def view(attempt: int = 1, state: str = "running") -> SshView:
    ranks = (
        SshRank(0, "main1", state, f"ssh-ed25519 MAIN{attempt}"),
        SshRank(1, "sub1", state, f"ssh-ed25519 SUB{attempt}"),
    )
    return SshView(ID, "demo", attempt, ranks)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, manager: FakeManager) -> Home:
    """A user with an empty home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PHALANX_CONFIG", str(tmp_path / "conf" / "config.toml"))
    manager.on("GET", SSH, view())
    manager.on("GET", BY_ID, view())
    return Home.of(manager.url, os.environ)


def phalanx(*argv: str, stdin: bytes = b"", path: str = "") -> subprocess.CompletedProcess[bytes]:
    environ = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run(
        [sys.executable, "-m", "phalanx_client", *argv],
        input=stdin, capture_output=True, check=False, timeout=30, env=environ,
    )  # fmt: skip


@pytest.fixture
def fake_ssh(tmp_path: Path) -> str:
    """A PATH with an ssh that says how it was called and ends with 7."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(FAKE_SSH)
    (folder / "ssh").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


# ---------------------------------------------------------------- ssh


def test_ssh_becomes_the_machines_ssh_with_a_way_and_trust_of_its_own(
    home: Home, fake_ssh: str, manager: FakeManager
) -> None:
    done = phalanx("ssh", "demo/1", "--", "-v", "ls", "-l", path=fake_ssh)

    words = done.stdout.decode().splitlines()
    proxy = next(word for word in words if word.startswith("ProxyCommand="))
    assert 7 == done.returncode
    assert ["sub1.demo", "-v", "ls", "-l", f"token {TOKEN}"] == words[-5:]
    assert {"StrictHostKeyChecking=yes", "HostKeyAlias=sub1.demo"} <= set(words)
    assert proxy.endswith(f"ssh-proxy --url {manager.url} {ID}/sub1")
    assert TOKEN not in proxy


def test_a_container_that_does_not_run_is_not_tried(
    cli: Cli, home: Home, manager: FakeManager
) -> None:
    manager.on("GET", SSH, view(state="preparing"))

    outcome = cli("ssh", "demo")

    assert (65, "phalanx: rank 0 (main1) is preparing\n") == (outcome.code, outcome.err)


def test_a_machine_without_ssh_is_told_what_to_do(home: Home) -> None:
    done = phalanx("ssh", "demo/1", path="/nowhere")

    assert 69 == done.returncode
    assert b"install OpenSSH's client, or use: phalanx exec -it demo/1 -- " in done.stderr


# ---------------------------------------------------------------- keys


def test_a_key_is_made_once_and_is_its_owners_alone(home: Home) -> None:
    first, again = ssh_client.own_key(home), ssh_client.own_key(home)

    assert first == again == public_key(first)
    assert 0o600 == stat.S_IMODE(home.key.stat().st_mode)
    assert 0o700 == stat.S_IMODE(home.folder.stat().st_mode)
    assert {"id_ed25519", "id_ed25519.pub"} == {path.name for path in home.folder.iterdir()}


def test_the_key_is_openssh_s_own(home: Home) -> None:
    public = ssh_client.own_key(home)

    told = subprocess.run(["ssh-keygen", "-y", "-f", home.key], capture_output=True, check=True)

    assert public == told.stdout.decode().strip()


def test_a_public_half_that_was_lost_is_made_again(home: Home) -> None:
    public = ssh_client.own_key(home)
    home.key.with_suffix(".pub").unlink()

    assert public == ssh_client.own_key(home)


def test_a_rotten_key_is_a_sentence(home: Home) -> None:
    home.key.parent.mkdir(parents=True)
    home.key.write_text("rotten")

    with pytest.raises(Failure, match="the ssh key "):
        ssh_client.own_key(home)


def test_a_folder_that_cannot_be_written_is_a_sentence(home: Home) -> None:
    home.folder.parent.mkdir()
    home.folder.write_text("in the way")

    with pytest.raises(Failure, match="the ssh key "):
        ssh_client.own_key(home)


def test_host_keys_that_nobody_uses_are_forgotten(home: Home) -> None:
    ssh_client.trust(home, view())
    old = home.host_keys("demo")
    os.utime(old, (1, 1))

    ssh_client.trust(home, msgspec.structs.replace(view(), name="other"))

    assert [home.host_keys("other")] == list(old.parent.iterdir())


# ---------------------------------------------------------------- ssh-config


def test_a_configuration_has_every_container_and_the_session(cli: Cli, home: Home) -> None:
    text = cli("ssh-config", "demo").out
    config = home.folder.parent / "ssh_config"
    config.write_text(text)
    told = {
        host: subprocess.run(
            ["ssh", "-F", config, "-G", host], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for host in ("demo", "main1.demo", "sub1.demo")
    }

    assert ["Host main1.demo demo", "Host sub1.demo"] == [
        line for line in text.splitlines() if line.startswith("Host ")
    ]
    for host, lines in told.items():
        alias = "sub1.demo" if host == "sub1.demo" else "main1.demo"
        assert f"hostkeyalias {alias}" in lines
        assert "stricthostkeychecking true" in lines
        assert f"userknownhostsfile {home.host_keys('demo')}" in lines
        assert f"identityfile {home.key}" in lines


def test_an_installed_configuration_is_found_by_ssh_and_goes_again(cli: Cli, home: Home) -> None:
    own = Path(os.environ["HOME"]) / ".ssh" / "config"
    own.parent.mkdir()
    own.write_text("Host mine\n    User me\n")

    first, second = cli("ssh-config", "--install", "demo"), cli("ssh-config", "--install", "demo")
    text = own.read_text()
    removed, again = cli("ssh-config", "--remove", "demo"), cli("ssh-config", "--remove", "demo")

    assert "main1.demo\nsub1.demo\n" == first.out == second.out
    assert f'Include "{home.folder}/config.d/*"\n\nHost mine\n    User me\n' == text
    assert 0o600 == stat.S_IMODE(own.stat().st_mode)
    assert (0, 66) == (removed.code, again.code)
    assert [] == list((home.folder / "config.d").iterdir())


def test_what_else_is_in_the_configuration_may_have_any_encoding(cli: Cli, home: Home) -> None:
    own = Path(os.environ["HOME"]) / ".ssh" / "config"
    own.parent.mkdir()
    own.write_bytes(b"# caf\xe9\n")

    cli("ssh-config", "--install", "demo")

    assert own.read_bytes().endswith(b'config.d/*"\n\n# caf\xe9\n')


def test_a_configuration_that_cannot_be_written_is_a_sentence(cli: Cli, home: Home) -> None:
    (Path(os.environ["HOME"]) / ".ssh").write_text("no folder")

    outcome = cli("ssh-config", "--install", "demo")

    assert (69, "phalanx: ") == (outcome.code, outcome.err[:9])
    assert ".ssh: " in outcome.err
    assert "bug" not in outcome.err


@pytest.mark.parametrize(
    "told",
    [
        {"name": "../../evil"},
        {"name": "demo\nProxyCommand evil"},
        {"id": "x\nProxyCommand evil"},
        {"ranks": (SshRank(0, "main1\nProxyCommand evil", "running", None),)},
        {"ranks": (SshRank(0, "main1", "running", "ssh-ed25519 A\n* ssh-ed25519 B"),)},
    ],
)
@pytest.mark.parametrize("verb", [("ssh",), ("ssh-config", "--install")])
def test_what_a_manager_tells_cannot_write_other_files_or_lines(
    cli: Cli, home: Home, manager: FakeManager, told: dict[str, Any], verb: tuple[str, ...]
) -> None:
    manager.on("GET", SSH, msgspec.structs.replace(view(), **told))

    outcome = cli(*verb, "demo")

    assert (69, True) == (outcome.code, "names that ssh must not be given" in outcome.err)
    assert not home.folder.exists()


@pytest.mark.parametrize("name", ["..", ".", "", "../../config.toml"])
def test_nothing_but_a_sessions_configuration_is_removed(cli: Cli, home: Home, name: str) -> None:
    cli("ssh-config", "--install", "demo")

    assert 66 == cli("ssh-config", "--remove", name).code


def test_a_linked_configuration_stays_a_link(cli: Cli, home: Home, tmp_path: Path) -> None:
    own = Path(os.environ["HOME"]) / ".ssh" / "config"
    own.parent.mkdir()
    own.symlink_to(tmp_path / "dotfiles-config")

    cli("ssh-config", "--install", "demo")

    assert own.is_symlink()
    assert "Include " in (tmp_path / "dotfiles-config").read_text()


# ---------------------------------------------------------------- ssh-proxy


def an_echo(manager: FakeManager) -> None:
    """A port that says all back after the end of data."""

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        data = b""
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                break
            data += message.data
        await socket.send_bytes(data)
        await socket.send_str('{"eof": true}')
        await socket.close()
        return socket

    manager.on("GET", FORWARD, answer)


def test_the_proxy_writes_the_host_keys_of_now_and_passes_bytes(
    home: Home, manager: FakeManager
) -> None:
    an_echo(manager)
    ssh_client.trust(home, view(attempt=1))
    manager.on("GET", SSH, view(attempt=2))

    done = phalanx("ssh-proxy", "demo/sub1", stdin=b"\x00\xffbytes" * 50_000)

    assert (0, b"\x00\xffbytes" * 50_000, b"") == (done.returncode, done.stdout, done.stderr)
    assert "main1.demo ssh-ed25519 MAIN2\nsub1.demo ssh-ed25519 SUB2\n" == (
        home.host_keys("demo").read_text()
    )
    assert {"rank": "1", "key": ssh_client.own_key(home)} == manager.asked("GET", FORWARD)[0].query


@pytest.mark.parametrize(
    ("answer", "code", "sentence"),
    [
        (fails(409, "not_running", "rank 0 (main1) has ended"), 65, "rank 0 (main1) has ended"),
        (fails(404, "not_found", "there is no session `demo`"), 66, "there is no session"),
    ],
)
def test_a_proxy_that_is_refused_says_why(
    home: Home, manager: FakeManager, answer: object, code: int, sentence: str
) -> None:
    manager.on("GET", FORWARD, answer)

    done = phalanx("ssh-proxy", "demo/main1")

    assert code == done.returncode
    assert sentence in done.stderr.decode()


@pytest.mark.parametrize("last", ["problem", "nothing"])
def test_a_connection_that_is_cut_off_is_told(home: Home, manager: FakeManager, last: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_bytes(b"half")
        if last == "problem":
            told = Problem("connection_reset", "it broke", 502)
            await socket.send_str(msgspec.json.encode({"problem": told}).decode())
        await socket.close()
        return socket

    manager.on("GET", FORWARD, answer)

    done = phalanx("ssh-proxy", "demo/main1")

    assert (69, b"half") == (done.returncode, done.stdout)
    assert ("it broke" if last == "problem" else "ended early") in done.stderr.decode()


# ---------------------------------------------------------------- forward


@contextlib.contextmanager
def forwarding(manager: FakeManager) -> Iterator[tuple[str, int]]:
    """What `phalanx forward` says, and its port of this machine, until it is interrupted."""
    an_echo(manager)
    manager.on("GET", "/v1/sessions/demo", session())
    argv = [sys.executable, "-m", "phalanx_client", "forward", "demo/sub1", "0:8888"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        yield said, int(said.split()[0].removeprefix("127.0.0.1:"))
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(20)


def echoed(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(100)


def test_a_port_of_this_machine_leads_to_one_of_a_container(
    home: Home, manager: FakeManager
) -> None:
    with forwarding(manager) as (said, port):
        told = echoed(port)

    assert b"hello" == told
    assert f"127.0.0.1:{port} leads to 8888 of sub1 of demo\n" == said
    assert {"rank": "1", "port": "8888"} == manager.asked("GET", FORWARD)[0].query


def test_a_hundred_open_connections_do_not_keep_others_waiting(
    home: Home, manager: FakeManager
) -> None:
    with forwarding(manager) as (_, port), contextlib.ExitStack() as held:
        for _ in range(101):
            held.enter_context(socket.create_connection(("127.0.0.1", port)))

        assert b"hello" == echoed(port)


@pytest.mark.parametrize("text", ["0", "70000", "abc", "1:0", "1:2:3", "70000:1", "-1", ""])
def test_what_is_no_port_is_bad_usage(cli: Cli, text: str) -> None:
    assert 64 == cli("forward", "demo", text).code


def test_a_port_that_is_taken_is_a_sentence(cli: Cli, home: Home, manager: FakeManager) -> None:
    manager.on("GET", "/v1/sessions/demo", session())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = cli("forward", "demo", f"{port}:80")

    assert 65 == outcome.code
    assert f"port {port} of this machine: " in outcome.err
