"""Secrets are in their place and nowhere else: no log, database, answer, image or dump."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from phalanx_lab import engine
from tests.real.ground import ACROSS, Ground, await_true, call

pytestmark = pytest.mark.real

HOMES = ("manager.key", "admin.token", "agent.key", "client-config.json")
"""The files that hold a secret because they are its place."""


def test_private_keys_are_in_host_memory_and_nowhere_else(clean: Ground) -> None:
    began = time.time()
    planted = Path(clean.lab.state_dir, "share", "planted")
    with clean.created("-N", "3", *ACROSS) as name:
        places = clean.containers(name)
        keys = [
            path.read_bytes()
            for host in clean.lab.hosts
            for path in Path(clean.lab.plan.agent_memory(host.index)).rglob("*")
            if path.name in ("id_ed25519", "host_key") and path.is_file()
        ]
        secrets = {needle for key in keys for needle in needles(key)}
        planted.write_bytes(keys[0])  # what is searched for can be found
        told = [clean.phalanx("show", name, "-o", "json").out, clean.phalanx("env", name).out]
        for container, agent in places.items():
            host = clean.host(agent)
            one = clean.docker(host, "ps", "-q", "--filter", f"name=-{container}$").ok().split()
            found = [clean.docker(host, "inspect", each).ok() for each in one]
            assert 1 == sum(f'"{container}"' in text for text in found)
            told += found
            told.append(clean.docker(host, "logs", one[0]).out)
            told.append(clean.docker(host, "diff", one[0]).ok())
    clean.await_state(name, "cancelled")

    assert 6 == len(keys)
    hits = [
        str(path)
        for path in changed_since(Path(clean.lab.state_dir), began)
        if any(secret in path.read_bytes() for secret in secrets)
    ]
    planted.unlink()
    assert [str(planted)] == hits
    assert [] == [
        text for text in told if any(secret.decode("latin-1") in text for secret in secrets)
    ]


def needles(key: bytes) -> set[bytes]:
    """Spellings of a private key's secret: raw, in hex, and as it stands in its file."""
    if key.startswith(b"-----BEGIN"):
        seed = load_ssh_private_key(key, None).private_bytes(
            Encoding.Raw, PrivateFormat.Raw, NoEncryption()
        )
        lines = key.splitlines()[3:-1]  # the public half comes first
        return {seed, seed.hex().encode(), *(line for line in lines if len(line) > 20)}
    seed = key[-64:-32]  # Dropbear's form ends in the seed and the public half
    return {seed, seed.hex().encode()}


def changed_since(root: Path, began: float) -> list[Path]:
    """All files below a folder that were written after a moment."""
    newer = ("-newermt", f"@{began - 1:.3f}")
    done = call("find", str(root), "-type", "f", *newer, "-print0")
    return [Path(name) for name in done.out.split("\0") if name and Path(name).is_file()]


def test_tokens_and_daemons_keys_are_in_their_own_files_alone(clean: Ground) -> None:
    state = Path(clean.lab.state_dir)
    bearer = clean.http("POST", "/v1/tokens", {"name": "ann", "scope": "user"}).ok()
    joining = clean.http("POST", "/v1/agent-tokens", {"name": "nobody"}).ok()
    secrets = {
        "the administrator's token": clean.lab.admin_token,
        "a user's token": bearer["token"],
        "a join token": joining["token"],
        "the manager's key": (state / "manager" / "manager.key").read_text().strip(),
    }
    for host in clean.lab.hosts:
        own = state / f"h{host.index}" / "agent" / "agent.key"
        secrets[f"the key of agent {host.name}"] = own.read_text().strip()
        swarm = engine.ask(host.engine_socket, "GET", "/swarm")
        if swarm[0] == 200:
            tokens = swarm[1]["JoinTokens"]
            secrets |= {f"the swarm's token, {kind}": tokens[kind] for kind in tokens}
    assert {"the swarm's token, Worker", "the swarm's token, Manager"} < secrets.keys()

    clean.http("GET", "/v1/sessions", token=bearer["token"]).ok()
    clean.run("-N", "3", *ACROSS, "--", "true").ok()
    told = [
        clean.http("GET", path).body.decode()
        for path in ("/v1/nodes", "/v1/tokens", "/v1/sessions?all=1", "/v1/events", "/metrics")
    ]
    for made in (bearer, joining):
        clean.http("DELETE", f"/v1/tokens/{made['id']}")

    files = [path for path in files_of(state) if path.name not in HOMES]
    assert state / "manager" / "phalanx.db" in files
    assert state / "logs" / "manager.log" in files
    assert clean.lab.admin_token.encode() in read(state / "manager" / "admin.token")
    for what, secret in secrets.items():
        assert [] == [str(path) for path in files if secret.encode() in read(path)], what
        assert not any(secret in text for text in told), what


@pytest.mark.parametrize("component", ["manager", "agent-1"])
def test_a_daemon_that_crashes_leaves_no_memory_on_the_disk(clean: Ground, component: str) -> None:
    pid = clean.lab.pid(component)
    folder = Path(f"/proc/{pid}/cwd").resolve()
    before = {path.name for path in folder.iterdir()}
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    assert ["0", "0"] == next(line.split()[4:6] for line in limits if "core file" in line)

    call("kill", "-ABRT", str(pid)).ok()
    await_true("it is there again", lambda: clean.lab.pid(component) not in (0, pid))
    await_true("it works again", lambda: clean.run("--", "true").code == 0)

    assert before == {path.name for path in folder.iterdir()}


def files_of(state: Path) -> list[Path]:
    """All of a lab's files but the engines' own."""
    return [
        path
        for path in state.rglob("*")
        if path.is_file() and "engine" not in path.relative_to(state).parts
    ]


def read(path: Path) -> bytes:
    """A file's content; nothing when it has gone meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
